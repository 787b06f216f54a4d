"""Several right answers, and fewer classes to choose from, against the same in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax import create_model, save_torch
from avit_jax.evaluation.right_answers import RightAnswers
from avit_jax.evaluation.run import evaluate_run
from avit_jax.losses import classification
from tests.data import prepared

LOGITS = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
LABELS = np.arange(40) % 6


@pytest.mark.parametrize("k", [1, 5])
def test_one_of_several_right_answers_is_a_hit(k):
    right = np.random.default_rng(1).random((40, 12)) < 0.2
    answers = RightAnswers(labels=jnp.asarray(LABELS), right=jnp.asarray(right))
    largest = np.argsort(-LOGITS, axis=1)[:, :k]
    expected = [bool(row[top].any()) for row, top in zip(right, largest, strict=True)]
    assert answers.hits(jnp.asarray(LOGITS), k=k).tolist() == expected
    assert 0 < sum(expected) < 40 and not right.any(1).all()


@pytest.mark.parametrize("k", [1, 5])
def test_with_one_right_answer_it_is_the_hit_of_a_label_ties_and_nan_included(k):
    logits = np.round(LOGITS)  # many ties
    logits[3, 2] = np.nan
    right = np.eye(12, dtype=bool)[LABELS]
    found = classification.any_hits(jnp.asarray(logits), jnp.asarray(right), k=k)
    expected = classification.hits(jnp.asarray(logits), jnp.asarray(LABELS), k=k)
    np.testing.assert_array_equal(found, expected)
    assert not found[3]


def test_right_answers_that_tie_do_not_stand_in_each_others_way():
    logits, right = jnp.array([[2.0, 2.0, 1.0]]), jnp.array([[True, True, False]])
    assert classification.any_hits(logits, right, k=1).tolist() == [True]


def test_fewer_classes_to_choose_from_are_as_a_classifier_of_those_alone():
    kept = [0, 1, 2, 3, 4, 5, 9]
    choice = np.zeros((40, 12), bool)
    choice[:, kept] = True
    few = RightAnswers(labels=jnp.asarray(LABELS), choice=jnp.asarray(choice))
    alone = RightAnswers(labels=jnp.asarray(LABELS))
    logits, short = jnp.asarray(LOGITS), jnp.asarray(LOGITS[:, kept])
    for k in (1, 5):
        np.testing.assert_array_equal(few.hits(logits, k=k), alone.hits(short, k=k))
    np.testing.assert_allclose(few.cross_entropy(logits), alone.cross_entropy(short), rtol=1e-5)
    assert (few.hits(logits, k=1) != alone.hits(logits, k=1)).any()


def test_cross_entropy_is_against_all_right_answers_alike():
    right = np.zeros((40, 12), bool)
    right[:, [2, 7, 11]] = True
    answers = RightAnswers(labels=jnp.asarray(LABELS), right=jnp.asarray(right))
    shifted = np.log(np.exp(LOGITS).sum(1, keepdims=True))
    expected = -(LOGITS - shifted)[:, [2, 7, 11]].mean(1)
    np.testing.assert_allclose(answers.cross_entropy(jnp.asarray(LOGITS)), expected, rtol=1e-5)


@pytest.fixture
def evaluated(tmp_path):
    """Evaluates a model of ImageNet's classes whose answers to every image are 7, 11, then 0..."""
    sizes = {"patch_size": 16, "depth": 1, "embed_dim": 8, "num_heads": 1}
    model = create_model("deit_micro_patch4_32", **sizes)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), model.abstract_params())
    params["head"]["bias"][[7, 11]] = 2.0, 1.0
    file = tmp_path / "weights.safetensors"
    save_torch(file, model.to_torch(params))

    def run(name: str, split: str, examples: list[dict]) -> dict:
        prepared.write(name, tmp_path, split=split, examples=examples)
        config = configs.base(model="deit_micro_patch4_32")
        config.model.update(sizes)
        config.data.update(name=name, dir=str(tmp_path), eval_split=split)
        config.init.weights = str(file)
        config.eval.batch_size = 8
        return evaluate_run(config, tmp_path / "run")

    return run


def test_real_labels_are_evaluated_and_images_without_one_counted(evaluated, capsys):
    labels = [[7], [3, 7], [], [11]]
    examples = [{"original_label": 3, "real_label": label} for label in labels]
    found = evaluated("imagenet2012_real", "validation", examples)
    assert (found["images"], found["unlabelled"]) == (3, 1)
    assert (found["top1"], found["top5"]) == (pytest.approx(2 / 3), 1.0)
    assert "images without a label, left out" in capsys.readouterr().out


def test_answers_that_are_not_to_choose_do_not_count(evaluated, capsys):
    found = evaluated("imagenet_a", "test", [{"label": 11}, {"label": 6}])  # 7 is not among them
    assert (found["images"], found["choice_of_classes"], found["top1"]) == (2, 200, 0.5)
    total = np.exp(1.0) + 199
    nats = (np.log(total) - 1 + np.log(total)) / 2
    assert found["cross_entropy"] == pytest.approx(nats, rel=1e-4)
    assert "classes to choose from" in capsys.readouterr().out
