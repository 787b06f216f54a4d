"""Static execution of cascades: images really leave, and whatever finds a place is exact."""

import dataclasses
import re
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.execution.execution import executed_gmacs
from avit_jax.execution.executions import fastest
from avit_jax.execution.static import STATIC
from avit_jax.methods.dvt import early_exit
from avit_jax.runtime.device_mesh import make_mesh
from tests.parity import dvt as recorded
from tests.parity.golden import group, load

BATCH, SIZE = 7, 32
SIZES = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
HALTING = {"gate_scale": 3.0, "gate_center": 0.5}


class Case(NamedTuple):
    """A cascade of which some images leave behind each exit, and what masked execution says."""

    model: object
    params: dict
    images: np.ndarray
    expected: object


def case_of(model, params, images) -> Case:
    """With thresholds between two images of those that reach each exit: about half leave."""

    @jax.jit
    def masked(thresholds):
        return model.apply(params, images, settings={"thresholds": thresholds})

    thresholds, reached = [], np.ones(len(images), bool)
    for logits in masked((2.0,) * (len(model.exits) - 1)).exits[:-1]:
        sure = np.asarray(early_exit.confidence(logits))
        lower, upper = np.sort(sure[reached])[len(sure[reached]) // 2 - 1 :][:2]
        thresholds.append(float(lower + upper) / 2)
        reached &= sure < thresholds[-1]
    changed = model.changed({"thresholds": tuple(thresholds)})
    return Case(changed, params, np.asarray(images), masked(tuple(thresholds)))


def small(name, **method) -> Case:
    model = create_model(name, method=method, **SIZES)
    images = 2 * jax.random.normal(jax.random.key(1), (BATCH, SIZE, SIZE, 3))
    return case_of(model, model.init(jax.random.key(0)), images)


def enough(case, images=slice(None)) -> tuple[int, ...]:
    """Places that just hold the images that go on."""
    return tuple(map(int, case.model.static_work(case.expected.usage)[:, images].sum(1)))


def compiled(case, places, *, batch_size=BATCH, mesh=ONE_DEVICE):
    plan = dataclasses.replace(case.model.default_plan(batch_size), static_rows=places)
    return case.model.compile(
        case.params, batch_size=batch_size, execution="static", plan=plan, mesh=mesh
    )


def check(answer, expected) -> None:
    np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(answer.exits, expected.exits, atol=1e-5)
    chex.assert_trees_all_equal(answer.usage, expected.usage)


@pytest.fixture(scope="module")
def case():
    return small("dvt_deit_micro", grids=(2, 3, 4))


@pytest.fixture(scope="module")
def program(case):
    """With places that just hold the images that go on."""
    return compiled(case, enough(case))


def test_just_enough_places_give_the_answers_of_masked_execution(case, program):
    second, third = enough(case)
    assert BATCH > second > third > 0
    check(program(case.images), case.expected)
    assert program.overflows == 0


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("dvt_avit_deit_micro", {"grids": (2, 4), "feature_reuse": False, "inner": HALTING}),
        pytest.param(
            "dvt_adavit_deit_micro",
            {"grids": (2, 3, 4), "relation_reuse": False, "inner": {"keep_layers": 1}},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "dvt_deit_micro",
            {"grids": (2, 4), "relation_reuse": False, "feature_reuse": False},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_whatever_is_handed_over_and_halts_inside_the_answers_are_those_of_masked(name, method):
    case = small(name, **method)
    predict = compiled(case, enough(case))
    check(predict(case.images), case.expected)
    assert predict.overflows == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", recorded.CASCADES)
def test_published_cascades_answer_as_masked(name):
    golden = load(f"dvt/{name}")
    model = recorded.model_of(golden)
    images = golden["in/x"].transpose(0, 2, 3, 1)
    images = np.concatenate([images, images[:, ::-1], -images])[:5]
    case = case_of(model, model.from_torch(group(golden, "param/")), images)
    predict = compiled(case, enough(case), batch_size=len(images))
    check(predict(images), case.expected)
    assert predict.overflows == 0


@pytest.mark.slow
@pytest.mark.parametrize(("inner", "returns"), [("avit", False), ("adavit", True)])
def test_a_single_exit_is_what_its_method_is(inner, returns):
    model = create_model(f"dvt_{inner}_deit_micro", method={"grids": (4,)}, **SIZES)
    alone = model.exits[0]
    assert model.static_parts == alone.static_parts and model.static_most == 17
    assert model.tokens_return == returns
    params = model.init(jax.random.key(0))
    images = np.random.default_rng(0).normal(size=(3, SIZE, SIZE, 3)).astype(np.float32)
    predict = model.compile(params, batch_size=3, execution="static", mesh=ONE_DEVICE)
    expected = jax.jit(alone.apply)(params["exit1"], images)
    np.testing.assert_allclose(predict(images).logits, expected.logits, atol=1e-5)
    assert predict.overflows == 0 and len(predict.plan.static_rows) == model.static_parts


def test_an_image_without_a_place_is_named_and_masked_execution_answers(case):
    second, third = enough(case)
    predict = compiled(case, (second - 1, third))
    arguments = predict.put(case.images)
    said = predict.start(*arguments)
    lost = ~np.asarray(said.fits)
    assert lost.sum() == 1
    fitting = jax.tree.map(lambda ran: np.asarray(ran)[:, ~lost], (said.usage, case.expected.usage))
    chex.assert_trees_all_equal(*fitting)
    np.testing.assert_allclose(said.logits[~lost], case.expected.logits[~lost], atol=1e-5)
    # It has no place further on, either, and takes none there.
    assert not any(np.asarray(used.tokens)[:, lost].any() for used in said.usage[1:])
    check(predict.finish(said, *arguments), case.expected)
    assert predict.overflows == 1


def test_images_that_only_fill_up_take_no_places(case, program):
    goes_on = np.asarray(case.expected.usage[1].tokens).any((0, 2))
    images = np.where(goes_on[:, None, None, None], case.images, case.images[goes_on][0])
    found = program.start(jnp.asarray(images), jnp.asarray(goes_on))
    assert np.asarray(found.fits).all()
    np.testing.assert_allclose(found.logits[goes_on], case.expected.logits[goes_on], atol=1e-5)
    assert not np.asarray(found.usage[0].tokens)[:, ~goes_on].any()


def test_an_image_that_is_no_number_goes_on_and_spoils_no_other(case, program):
    goes_on = np.flatnonzero(np.asarray(case.expected.usage[2].tokens).any((0, 2)))
    images = np.array(case.images)
    images[goes_on[0], 3, 3] = np.nan
    found = program(images)
    others = np.arange(BATCH) != goes_on[0]
    assert program.overflows == 0 and not np.isfinite(found.logits[~others]).any()
    np.testing.assert_allclose(found.logits[others], case.expected.logits[others], atol=1e-5)


@pytest.mark.parametrize("devices", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_every_device_has_places_of_its_own(case, devices):
    mesh, size = make_mesh(devices=jax.devices()[:devices]), 8 // devices
    parts = [enough(case, slice(i, i + size)) for i in range(0, BATCH, size)]
    places = tuple(np.maximum(np.max(parts, 0), 1).tolist())
    predict = compiled(case, places, batch_size=8, mesh=mesh)
    check(predict(case.images), case.expected)
    assert predict.overflows == 0


def test_no_loop_and_no_branch_depends_on_data(case):
    plan = dataclasses.replace(case.model.default_plan(BATCH), static_rows=enough(case))
    traced = jax.make_jaxpr(STATIC.program(case.model, plan))(
        case.model.abstract_params(), case.images, jnp.ones(BATCH, bool)
    )
    assert not re.search(r"\b(while|cond)\[", str(traced))


def test_every_place_costs_what_its_exit_costs(case):
    model, usage = case.model, case.expected.usage
    plan = dataclasses.replace(model.default_plan(BATCH), static_rows=enough(case))
    needed = float(model.gmacs(case.expected).sum())
    assert executed_gmacs(STATIC, model, usage, plan) == pytest.approx(needed, rel=1e-5)
    plan = dataclasses.replace(plan, static_rows=(100, BATCH))  # more than there are images
    everything = BATCH * model.dense_gmacs()
    assert executed_gmacs(STATIC, model, usage, plan) == pytest.approx(everything, rel=1e-6)


def test_sizes_come_from_a_batch_and_hold_one_image_at_least(case):
    many = jax.tree.map(lambda ran: np.tile(ran, (1, 40, 1)), case.expected.usage)
    plan = STATIC.sized(case.model, many, case.model.default_plan(512), 512)
    assert all(images % 8 == 0 and images < 512 for images in plan.static_rows)
    assert np.all(np.multiply(plan.static_rows, BATCH) > np.multiply(enough(case), 512))
    nobody = jax.tree.map(lambda ran: np.zeros_like(ran), case.expected.usage)
    plan = case.model.default_plan(1)
    for usage in (nobody, jax.tree.map(lambda ran: ran[:, :1], nobody)):
        assert STATIC.sized(case.model, usage, plan, 1).static_rows == (1, 1)


def test_places_that_cannot_be_are_refused(case):
    for places, sentence in (((4,), "1 static_rows, but this model wants 2"), ((2, 3), "not rise")):
        with pytest.raises(ValueError, match=sentence):
            compiled(case, places)


def test_accelerators_run_cascades_statically_unless_nothing_can_leave():
    three = create_model("dvt_deit_micro")
    assert fastest(three, "gpu").name == fastest(three, "tpu").name == "static"
    one = create_model("dvt_deit_micro", method={"grids": (8,)})
    assert fastest(one, "gpu").name == "masked" and not STATIC.offered(one)
    halting = create_model("dvt_avit_deit_micro", method={"grids": (8,)})
    assert fastest(halting, "gpu").name == "static"
    assert fastest(halting, "tpu").name == "masked"
