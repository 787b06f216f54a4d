"""Whatever is chosen together is the same in every execution, learns, and belongs to its image.

Three combinations are drawn in the normal suite, many more with `-m slow`; both print how many were
run, and how many were refused because they contradict each other.
"""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from avit_jax.errors import UserError
from avit_jax.execution.executions import EXECUTIONS
from avit_jax.execution.plan import Plan
from avit_jax.runtime.device_mesh import make_mesh
from tests.design_space.combinations import Combination, combinations, images_of, start

BATCH = 3
SURE = 1e-4  # decisions that are nearer to the border than this may differ by rounding
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
TWO_DEVICES = make_mesh(devices=jax.devices()[:2])
runs: collections.Counter = collections.Counter()


def drawn(examples: int):
    """Any combinations, the same each time: a failing one is worth more than a smaller one."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module", autouse=True)
def _counted():
    yield
    print("\ncombinations:", ", ".join(f"{count} {what}" for what, count in runs.items()))


@drawn(3)
@given(combinations())
def test_a_few_combinations(combination):
    check(combination)


@pytest.mark.slow
@drawn(400)
@given(combinations())
def test_many_combinations(combination):
    check(combination)


def check(combination: Combination) -> None:
    """Everything that holds of any model, of this one."""
    try:
        model = combination.model()
    except UserError as error:
        assert str(error).count(":") and len(str(error)) <= 420, error
        runs["refused"] += 1
        return
    params, images = start(model), images_of(BATCH)
    masked = jax.jit(model.apply)(params, images)
    sure = np.asarray(masked.aux.get("margin", np.ones(BATCH))) > SURE
    assert np.isfinite(masked.logits).all()
    runs["run"] += 1
    runs["that skip something"] += bool((model.gmacs(masked) < 0.999 * model.dense_gmacs()).any())
    executed(model, params, images, masked, sure)
    learns(model, params, images)
    belongs_to_its_image(model, params, images, masked, sure)


def executed(model, params, images, masked, sure) -> None:
    """Compiled executions, on one device, on two, and by single images, answer as masked does."""
    tokens = model.shape.num_tokens
    plan = Plan(
        images=2, row_sizes=(8, 32), attention_images=2, lengths=(8, tokens), dense_images=2
    )
    eager = model.apply(params, images[:1])
    alike(eager.logits, masked.logits[:1], sure[:1], "eager")
    for name in ("compact", "static", "masked"):
        execution = EXECUTIONS[name]
        if not execution.offered(model):
            with pytest.raises(UserError):
                model.compile(params, batch_size=BATCH, execution=name, mesh=ONE_DEVICE)
            runs[f"without {name}"] += 1
            continue
        meshes = {"masked": [TWO_DEVICES]}.get(name, [ONE_DEVICE])
        for mesh in meshes:
            filled = BATCH + BATCH % mesh.size
            predict = model.compile(params, batch_size=filled, execution=name, plan=plan, mesh=mesh)
            answer = predict(images)
            alike(answer.logits, masked.logits, sure, name)
            for found, wanted in zip(answer.usage, masked.usage, strict=True):
                np.testing.assert_array_equal(found.tokens[:, sure], wanted.tokens[:, sure])
    if EXECUTIONS["compact"].offered(model):
        alone = model.compile(params, batch_size=1, mesh=ONE_DEVICE)
        alike(alone(images[:1]).logits, masked.logits[:1], sure[:1], "single image")


def learns(model, params, images) -> None:
    """Gradients of loss and penalties are finite, and reach something."""
    labels = jnp.arange(BATCH)
    key = jax.random.key(0)

    @jax.jit
    @functools.partial(jax.grad)
    def gradient(params):
        output = model.apply(params, images, train=True, key=key)
        task = optax.softmax_cross_entropy_with_integer_labels(output.logits, labels).mean()
        return task + sum(output.penalties.values())

    leaves = jax.tree.leaves(gradient(params))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)
    assert any(bool(jnp.any(leaf != 0)) for leaf in leaves)


def belongs_to_its_image(model, params, images, masked, sure) -> None:
    """The answer to an image is the same in another place among other images."""
    others = np.concatenate([images[2:], images_of(1, seed=7), images[:1]])
    found = jax.jit(model.apply)(params, others)
    alike(
        found.logits[np.array([2, 0])],
        masked.logits[np.array([0, 2])],
        sure[[0, 2]],
        "another batch",
    )


def alike(found, wanted, sure, where: str) -> None:
    """Logits of images whose decisions are sure, but for rounding."""
    size = np.abs(wanted).max()
    np.testing.assert_allclose(
        np.asarray(found)[sure], np.asarray(wanted)[sure], atol=1e-4 * max(1.0, size), err_msg=where
    )
