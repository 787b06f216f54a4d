"""T2T-ViT: every stage of the token module, the blocks and the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import avit_jax
from avit_jax.methods.base import Model
from avit_jax.models import functional
from avit_jax.models.soft_split import SPLITS, soft_split
from avit_jax.models.t2t import T2TViT
from avit_jax.runtime.device_mesh import make_mesh
from tests.parity.golden import Difference, difference, group, load

CASES = ("tiny_performer", "tiny_transformer", "tiny_performer_qkscale_96")
ALLOWED = 2e-5


def model_of(golden: Mapping[str, np.ndarray]) -> Model:
    """The model a file was recorded from."""
    cfg = {name: value.item() for name, value in group(golden, "cfg/").items()}
    sizes = ("embed_dim", "depth", "num_heads", "num_classes", "qkv_bias", "token_dim")
    return avit_jax.create_model(
        "t2t_vit_14",
        image_size=cfg["img_size"],
        mlp_ratio=cfg["mlp_hidden"] / cfg["embed_dim"],
        tokens="performer" if cfg["tokens_performer"] else "transformer",
        attention_scale=cfg.get("qk_scale_override"),
        **{name: cfg[name] for name in sizes},
    )


def differences(case: str) -> Iterator[Difference]:
    """Every comparison with one recorded file."""
    golden = load(f"t2t/{case}")
    model = model_of(golden)
    params = model.from_torch(group(golden, "param/"))
    images = golden["in/x"].transpose(0, 2, 3, 1)
    output = jax.jit(lambda p, x: model.apply(p, x, features=True))(params, images)
    mesh = make_mesh(devices=jax.devices()[:1])
    dense = model.compile(params, batch_size=len(images), execution="dense", mesh=mesh)
    ours = {
        **jax.jit(lambda p, x: _stages(functional.bind(model.build, p), x))(params, images),
        "block_out": output.aux["features"].swapaxes(0, 1),
        "logits": output.logits,
    }
    for name, array in ours.items():
        yield difference(name, array, golden[f"out/{name}"], ALLOWED)
    yield difference("compiled, logits", dense(images).logits, golden["out/logits"], ALLOWED)


def _stages(network: T2TViT, images: Array) -> dict[str, Array]:
    """What the token module computes on the way, under the names of the recorded files."""
    found, grid, kind = {}, images, network.shape.tokens
    for number, split in enumerate(SPLITS):
        windows = soft_split(grid, split)
        flat = windows.reshape(len(images), -1, windows.shape[-1])
        found[f"soft_split{number}"] = flat.swapaxes(1, 2)
        if number == len(SPLITS) - 1:
            break
        layer = getattr(network.tokens_to_token, f"{kind}{number + 1}")
        if kind == "performer":
            keys, queries, _ = jnp.split(layer.kqv(layer.norm1(flat)), 3, axis=-1)
            found[f"attention{number + 1}_phi_k"] = layer.features(keys)
            found[f"attention{number + 1}_phi_q"] = layer.features(queries)
        tokens = layer(flat, rate=0.1, key=None)
        found[f"attention{number + 1}"] = tokens
        grid = tokens.reshape(*windows.shape[:3], -1)
    return found | {"t2t_tokens": network.patches(images, None), "embed": network.embed(images)}
