"""The teacher's loss: the published numbers, and what a student is not compared in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.errors import UserError
from avit_jax.losses import classification
from avit_jax.losses.distillation import Distillation, Teacher
from avit_jax.methods import plain
from avit_jax.types import Output, Usage
from tests.parity.golden import group, load

PARTS = {"attention": "attn", "hidden": "hidden", "logits": "pred"}
PUBLISHED = Distillation()
TINY = {"image_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 5, "num_heads": 3}


@pytest.fixture(scope="module")
def golden():
    return load("adavit/teacher_loss")


def side(golden, who, *, heads=None, layers=None) -> Output:
    """An output as `apply(features=True)` gives it; the golden file has images first."""
    recorded = [golden[f"in/{who}_{name}"] for name in ("attn_cls_row", "hidden_cls")]
    attention, hidden = (np.swapaxes(array, 0, 1) for array in recorded)
    tokens = jnp.ones((*attention.shape[:2], attention.shape[-1]), bool)
    return Output(
        logits=jnp.asarray(golden[f"in/{who}_logits"]),
        usage=(Usage(tokens=tokens, heads=heads, halves=layers),),
        aux={"attention": jnp.asarray(attention), "features": jnp.asarray(hidden)[:, :, None]},
    )


def decided(golden, kind):
    """Decisions `[L, B, ...]`: blocks in front, which have no policy, run everything."""
    found = np.swapaxes(golden[f"in/{kind}_select"], 0, 1)
    front = np.ones((golden["cfg/keep_layers"], *found.shape[1:]), found.dtype)
    return jnp.asarray(np.concatenate([front, found]) > 0)


@pytest.fixture(scope="module")
def both(golden):
    """Student and teacher of the golden file."""
    heads, layers = decided(golden, "head"), decided(golden, "layer")
    return side(golden, "student", heads=heads, layers=layers), side(golden, "teacher")


def test_the_defaults_are_the_published_weights(golden):
    names = {"attention": "attn_ratio", "hidden": "hidden_ratio", "logits": "pred_ratio"}
    for ours, theirs in (names | {"temperature": "tau"}).items():
        assert getattr(PUBLISHED, ours) == golden[f"cfg/{theirs}"]


def test_parts_and_total_are_the_published_ones(golden, both):
    student, teacher = both
    penalties = PUBLISHED.penalties(student, teacher)
    for ours, theirs in PARTS.items():
        found = penalties[ours] / getattr(PUBLISHED, ours)
        np.testing.assert_allclose(found, golden[f"loss/{theirs}_loss"], rtol=1e-6)
    usage = sum(golden[f"loss/{kind}_loss"] for kind in ("head", "layer", "token"))
    task = classification.cross_entropy(student.logits, golden["in/soft_target"]).mean()
    total = task + 2.0 * usage + sum(penalties.values())
    np.testing.assert_allclose(total, golden["loss/total"], rtol=1e-6)


def test_what_a_model_shows_is_what_the_published_loss_looks_at(golden):
    """The same numbers again from images: weights and noise of the golden training step."""
    params, step = (load(f"adavit/tiny_deit_{name}") for name in ("eval", "train"))
    model = create_model("adavit_deit_micro_patch4_32", num_classes=10, **TINY)
    noise = {f"{kind}s": [] for kind in ("head", "layer", "token")}
    for block, kind in [(block, kind) for block in range(5) for kind in ("head", "layer", "token")]:
        drawn = group(step, f"noise/block{block}/{kind}/")
        shape = {"head": (5, 3), "layer": (5, 2), "token": (5, 16)}[kind]
        found = drawn["g1"] - drawn["g2"] if drawn else np.zeros(shape, np.float32)
        noise[f"{kind}s"].append(found.reshape(shape))
    noise = {kind: jnp.asarray(np.stack(found)) for kind, found in noise.items()}
    images = step["in/x"].transpose(0, 2, 3, 1)
    weights = model.from_torch(group(params, "param/"))
    student = model.apply(weights, images, train=True, noise=noise, features=True)
    seen = student.aux["features"][:, :, :1]
    student = student.replace(aux=student.aux | {"features": seen})
    penalties = PUBLISHED.penalties(student, side(golden, "teacher"))
    for ours, theirs in PARTS.items():
        found = penalties[ours] / getattr(PUBLISHED, ours)
        np.testing.assert_allclose(found, golden[f"loss/{theirs}_loss"], rtol=1e-5)


def test_a_student_without_policies_is_compared_everywhere(both):
    student, teacher = both
    plain = student.replace(usage=(Usage(tokens=student.usage[0].tokens),))
    ones = jax.tree.map(jnp.ones_like, student.usage)
    everywhere = PUBLISHED.penalties(student.replace(usage=ones), teacher)
    assert PUBLISHED.penalties(plain, teacher) == everywhere
    assert everywhere["hidden"] > PUBLISHED.penalties(student, teacher)["hidden"]


def test_a_class_token_that_halted_is_not_compared(both):
    student, teacher = both
    halted = student.replace(usage=(Usage(tokens=student.usage[0].tokens.at[2:, :, 0].set(False)),))
    short = {name: array[:2] for name, array in student.aux.items()}
    until = student.replace(usage=(Usage(tokens=student.usage[0].tokens[:2]),), aux=short)
    first = teacher.replace(aux={name: array[:2] for name, array in teacher.aux.items()})
    found, expected = PUBLISHED.penalties(halted, teacher), PUBLISHED.penalties(until, first)
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


def test_a_student_that_is_its_teacher_differs_in_nothing_but_the_entropy_of_its_answers():
    model = create_model("deit_micro_patch4_32", num_classes=4, **TINY)
    params = model.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    shown = model.apply(params, images, features=True)
    found = Teacher(model, Distillation(temperature=2.0)).penalties(params, images, shown)
    soft = jax.nn.softmax(shown.logits / 2.0)
    assert found["attention"] == found["hidden"] == 0
    np.testing.assert_allclose(
        found["logits"], 0.5 * -(soft * jnp.log(soft)).sum(-1).mean(), rtol=1e-5
    )


def test_the_parameters_of_a_teacher_get_no_gradient():
    student, teacher = (
        create_model(name, num_classes=4, **TINY)
        for name in ("adavit_deit_micro_patch4_32", "deit_micro_patch4_32")
    )
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))

    def loss(params, teacher_params):
        shown = student.apply(
            params, images, train=True, key=jax.random.key(2), features=PUBLISHED.features
        )
        return sum(Teacher(teacher, PUBLISHED).penalties(teacher_params, images, shown).values())

    params, teacher_params = student.init(jax.random.key(0)), teacher.init(jax.random.key(3))
    ours, theirs = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, teacher_params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ours))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(ours["blocks"]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(theirs))


def test_a_part_without_weight_asks_for_nothing():
    plain = Output(logits=jnp.zeros((2, 3)), usage=Usage(tokens=jnp.ones((1, 2, 5), bool)))
    answers = Distillation(attention=0.0, hidden=0.0)
    assert not answers.features
    assert set(answers.penalties(plain, plain)) == {"logits"}
    for part in ("attention", "hidden"):
        nothing = {"attention": 0.0, "hidden": 0.0, "logits": 0.0}
        assert Distillation(**nothing | {part: 0.1}).features


def test_what_cannot_be_compared_is_named_with_its_remedy(both):
    student, teacher = both
    blind = student.replace(aux={"features": student.aux["features"]})
    with pytest.raises(UserError, match=r"of the student does not show its attention: .*attention"):
        PUBLISHED.penalties(blind, teacher)
    narrow = teacher.replace(aux=teacher.aux | {"features": teacher.aux["features"][..., :24]})
    with pytest.raises(UserError, match=r"\(5, 5, 24\) in the teacher .* --config.teacher.hid"):
        PUBLISHED.penalties(student, narrow)
    other = teacher.replace(logits=jnp.zeros((5, 1000)))
    with pytest.raises(UserError, match="tells 1000 classes apart and the student 10"):
        PUBLISHED.penalties(student, other)


def answering(logits, heads=None, **more) -> Output:
    aux = {} if heads is None else {"head_logits": jnp.asarray(heads)}
    return Output(logits=jnp.asarray(logits), usage=(), aux=aux, **more)


def deit_loss(kind, class_head, distillation_head, teacher, labels, alpha=0.5, tau=1.0):
    """Equations 2 and 3 of arXiv 2012.12877, in float64; the labels' loss is over `class_head`."""

    def log_softmax(logits):
        shifted = logits - logits.max(-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))

    rows = np.arange(len(labels))
    task = -log_softmax(class_head)[rows, labels].mean()
    if kind == "hard":
        distance = -log_softmax(distillation_head)[rows, teacher.argmax(-1)].mean()
    else:
        ours, theirs = log_softmax(distillation_head / tau), log_softmax(teacher / tau)
        distance = tau**2 * (np.exp(theirs) * (theirs - ours)).sum(-1).mean()
    return (1 - alpha) * task + alpha * distance


@pytest.mark.parametrize("kind", ["hard", "kl"])
@pytest.mark.parametrize("tau", [1.0, 3.0])
@pytest.mark.parametrize("distilled", [True, False])
def test_deits_two_ways_are_the_published_ones_with_a_head_for_each_judge(kind, tau, distilled):
    rng = np.random.default_rng(0)
    heads, teacher, labels = rng.normal(0, 2, (2, 6, 7)), rng.normal(0, 2, (6, 7)), np.arange(6)
    weights = {"attention": 0.0, "hidden": 0.0, "logits": 0.5, "labels": 0.5}
    distillation = Distillation(answers=kind, temperature=tau, **weights)
    student = answering(heads.mean(0), heads)
    labelled, taught = distillation.parted(student, distilled=distilled)
    task = classification.cross_entropy(labelled.logits, jax.nn.one_hot(labels, 7)).mean()
    (distance,) = distillation.penalties(taught, answering(teacher)).values()
    both = heads if distilled else [heads.mean(0), heads.mean(0)]
    expected = deit_loss(kind, both[0], both[1], teacher, labels, tau=tau)
    np.testing.assert_allclose(distillation.labels * task + distance, expected, rtol=1e-5)


def test_a_distilled_student_learns_from_adavits_teacher_with_both_heads():
    student = answering(np.ones((2, 3)), np.ones((2, 2, 3)))
    assert PUBLISHED.parted(student, distilled=True) == (student, student)


@pytest.mark.parametrize("more", [{"exits": jnp.zeros((2, 2, 3))}, {}])
def test_a_distilled_student_that_does_not_show_its_heads_is_refused(more):
    heads = np.ones((2, 2, 3)) if more else None
    distillation = Distillation(attention=0.0, hidden=0.0, answers="hard")
    with pytest.raises(
        UserError, match=r"answers is 'hard', .* write cross_entropy, or name a mod"
    ):
        distillation.parted(answering(np.ones((2, 3)), heads, **more), distilled=True)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"hidden": -0.1}, "config.teacher.hidden is -0.1: write 0 or more."),
        ({"logits": float("nan")}, "config.teacher.logits is nan: write 0 or more."),
        ({"temperature": 0.0}, "config.teacher.temperature is 0.0: write a number above 0."),
        ({"labels": -1.0}, "config.teacher.labels is -1.0: write 0 or more."),
        ({"answers": "soft"}, "answers is 'soft': write one of cross_entropy, hard, kl."),
        ({"attention": 0.0, "hidden": 0.0, "logits": 0.0}, "write one of them above 0"),
    ],
)
def test_impossible_weights_are_refused(values, sentence):
    with pytest.raises(UserError, match=sentence):
        Distillation(**values)


def test_a_dense_model_on_a_students_backbone_is_a_teacher_of_its_sizes():
    student = create_model("adavit_t2t_vit_7", num_classes=4, image_size=32)
    teacher = plain.Model(student.shape, plain.Settings())
    assert set(teacher.abstract_params()) == set(student.abstract_params()) - {"policies"}
