"""The mesh is a matter of speed: losses and parameters are the same on any of them."""

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax import config as configs
from avit_jax.losses import classification
from avit_jax.runtime.device_mesh import make_mesh, replicated, shard_batch
from avit_jax.training.optimization import Optimization

MESHES = {"1x1": (1, 1), "8x1": (8, 1), "2x4": (2, 4), "1x8": (1, 8)}
STEPS, BATCH = 3, 16


def losses_on(data, fsdp):
    """Losses of a few steps, with everything random switched on, on some of the devices."""
    config = configs.base(
        model="avit_micro_patch4_32", method={"gate_center": 0.0, "prior_weight": 0.1}
    )
    config.model.update(
        num_classes=10, patch_size=8, depth=2, embed_dim=64, drop_path_rate=0.2, dropout_rate=0.1
    )
    config.train.update(batch_size=BATCH, accumulation=2, ema_decay=0.9)
    config.data.erase.probability = 0.5
    config.data.mix.update(mixup=0.8, cutmix=1.0, per="batch", group=4)
    config.optim.clip_norm = 1.0
    optimization = Optimization(
        configs.Settings.of(config), configs.make_model(config), total_steps=10
    )
    mesh = make_mesh(data, fsdp, devices=jax.devices()[: data * fsdp])
    state, train_step = optimization.init_state(mesh), optimization.compiled_step(mesh)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(STEPS):
        batch = {
            "image": rng.integers(0, 256, (BATCH, 32, 32, 3), np.uint8),
            "label": rng.integers(0, 10, BATCH).astype(np.int32),
            "substituted": np.zeros(BATCH, bool),
        }
        state, averages = train_step(state, shard_batch(batch, mesh))
        found.append({name: float(value) for name, value in averages.items()})
    return found, state


@pytest.fixture(scope="module")
def single():
    return losses_on(1, 1)


# Both axes are in 2x4; each by itself is a slow twin.
@pytest.mark.parametrize(
    "mesh", ["2x4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("8x1", "1x8"))]
)
def test_losses_are_the_same_on_every_mesh(mesh, single):
    found, state = losses_on(*MESHES[mesh])
    for ours, reference in zip(found, single[0], strict=True):
        assert ours == pytest.approx(reference, abs=1e-5, rel=1e-5)
    for ours, reference in zip(
        jax.tree.leaves(state.ema), jax.tree.leaves(single[1].ema), strict=True
    ):
        np.testing.assert_allclose(ours, reference, atol=1e-5)
    if MESHES[mesh][1] > 1:
        split = [leaf for leaf in jax.tree.leaves(state.params) if not leaf.is_fully_replicated]
        assert split, "no parameter was sharded, so this proved nothing"


def test_gradients_through_masked_attention_are_the_same_on_every_mesh():
    """Where scores are computed once more in the backward pass, rounding may differ by mesh."""
    model = avit_jax.create_model(
        "adavit_deit_micro_patch4_32",
        method={"heads": False, "layers": False, "initial_logit": 0.5},
        num_classes=10, patch_size=8, depth=2, embed_dim=64, num_heads=2,
    )  # fmt: skip
    params = model.init(jax.random.key(0))
    images = np.random.default_rng(0).normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
    targets = np.eye(10, dtype=np.float32)[np.arange(BATCH) % 10]

    def gradients(devices):
        mesh = make_mesh(devices, 1, devices=jax.devices()[:devices])

        @jax.jit
        @jax.grad
        def of_loss(params, images):
            output = model.apply(params, images, train=True, key=jax.random.key(1))
            return classification.cross_entropy(output.logits, targets).mean()

        placed = jax.device_put(params, replicated(mesh))
        return of_loss(placed, shard_batch({"image": images}, mesh)["image"])

    for one, eight in zip(*map(jax.tree.leaves, map(gradients, (1, 8))), strict=True):
        np.testing.assert_allclose(one, eight, atol=1e-5 * np.abs(one).max() + 1e-7)
