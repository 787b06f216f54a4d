"""Positions travel with rows: an encoding that turns queries and keys is the same everywhere."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax.models.positions import PositionEncoding
from avit_jax.models.vit import ViTShape
from avit_jax.runtime.device_mesh import make_mesh

BORDER = 1e-4


def assert_alike(found, expected):
    """But for rounding, which weights as large as those here make larger: of the largest logit."""
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


class Rotary(PositionEncoding):
    """Queries and keys turned by an angle for each token's number (arXiv 2104.09864)."""

    acts_on_heads = True

    def place(self, heads, positions):
        half = heads.shape[-1] // 2
        angle = positions[..., None, None] * 3.0 ** -jnp.arange(half, dtype=jnp.float32)
        one, other = heads[..., :half], heads[..., half:]
        turned = (
            one * jnp.cos(angle) - other * jnp.sin(angle),
            one * jnp.sin(angle) + other * jnp.cos(angle),
        )
        return jnp.concatenate(turned, -1).astype(heads.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryShape(ViTShape):
    """A ViT without a table of positions."""

    @property
    def position_encoding(self):
        return Rotary()


CASES = {
    "avit": ("avit_micro_patch4_32", {"gate_scale": 4.0, "gate_center": 0.0}),
    "adavit": ("adavit_deit_micro_patch4_32", {"initial_logit": 0.0}),
    "dense": ("deit_micro_patch4_32", {}),
}


def rotary(method, **changes):
    name, settings = CASES[method]
    sizes = {"image_size": 32, "patch_size": 8, "depth": 4, "embed_dim": 24, "num_heads": 3}
    model = avit_jax.create_model(name, method=settings, num_classes=5, **sizes)
    fields = {f.name: getattr(model.shape, f.name) for f in dataclasses.fields(model.shape)}
    return dataclasses.replace(model, shape=RotaryShape(**fields | changes))


@pytest.mark.parametrize(
    ("method", "batch"),
    [
        ("avit", 1),
        ("adavit", 5),
        ("dense", 5),
        pytest.param("avit", 5, marks=pytest.mark.slow),
        pytest.param("adavit", 1, marks=pytest.mark.slow),
    ],
)
def test_rows_that_moved_still_know_their_places(method, batch):
    model = rotary(method)
    params = model.init(jax.random.key(0))
    assert "pos_embed" not in params
    params = jax.tree.map(lambda leaf: 4.0 * leaf, params)  # attention that looks somewhere
    images = np.random.default_rng(0).normal(size=(5, 32, 32, 3)).astype(np.float32)
    masked = jax.jit(model.apply)(params, images)
    sure = np.asarray(masked.aux.get("margin", np.ones(5))) > BORDER
    assert sure.any()
    mesh = make_mesh(devices=jax.devices()[:1])
    predict = model.compile(params, batch_size=batch, mesh=mesh)
    found = np.concatenate([predict(images[i : i + batch]).logits for i in range(0, 5, batch)])
    assert_alike(found[sure], masked.logits[sure])
    unplaced = dataclasses.replace(model, shape=plain(model.shape))
    other = jax.jit(unplaced.apply)(params, images).logits
    lost = np.abs(other - masked.logits).max() / np.abs(masked.logits).max()
    assert lost > 1e-2, "places make no difference here"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NowhereShape(ViTShape):
    """A ViT whose tokens do not know where they are."""

    @property
    def position_encoding(self):
        return PositionEncoding()


def plain(shape):
    return NowhereShape(**{f.name: getattr(shape, f.name) for f in dataclasses.fields(shape)})


def test_capped_execution_with_room_for_everything_places_rows_too():
    model = rotary("avit")
    params = jax.tree.map(lambda leaf: 4.0 * leaf, model.init(jax.random.key(0)))
    images = np.random.default_rng(0).normal(size=(5, 32, 32, 3)).astype(np.float32)
    masked = jax.jit(model.apply)(params, images)
    live = np.asarray(masked.usage[0].tokens).sum(-1).max(1)
    places = tuple(max(1, int(n)) for n in live)
    assert places[-1] < model.shape.num_tokens
    plan = dataclasses.replace(model.default_plan(5), capacities=places)
    mesh = make_mesh(devices=jax.devices()[:1])
    predict = model.compile(params, batch_size=5, execution="capped", plan=plan, mesh=mesh)
    assert_alike(predict(images).logits, masked.logits)
