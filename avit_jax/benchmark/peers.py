"""PyTorch's ViT of the same size as a peer, where PyTorch and transformers are installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from avit_jax.errors import UserError
from avit_jax.models.vit import ViTShape

PEERS = ("eager", "compile")
PACKAGES = ("torch", "transformers")


def available() -> bool:
    """Whether both packages are there."""
    return all(map(importlib.util.find_spec, PACKAGES))


def packages(kinds: Sequence[str]) -> tuple[str, ...]:
    """What the figures of these peers depend on, where it is installed."""
    return PACKAGES if kinds and available() else ()


def peer(kind: str, shape: ViTShape, images: np.ndarray) -> Callable[[], Any]:
    """Dense inference on `images` `[B, H, W, 3]`, "eager" or under `torch.compile`.

    Raises:
        UserError: unknown kind, or the packages are missing.
    """
    if kind not in PEERS:
        raise UserError(f"peer {kind!r} is unknown: write {' or '.join(PEERS)}.")
    if not available():
        raise UserError(
            "PyTorch or transformers is missing: install the extra `benchmark`, or leave "
            "config.benchmark.peers empty."
        )
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, shape.dtype)
    model = transformers.ViTForImageClassification(vit_config(transformers, shape))
    model = model.eval().to(device=device, dtype=dtype)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device, dtype)
    function = torch.compile(model) if kind == "compile" else model

    def predict() -> Any:
        with torch.inference_mode():
            logits = function(pixels).logits
        if device == "cuda":
            torch.cuda.synchronize()
        return np.asarray(logits.float().cpu())

    return predict


def vit_config(transformers: Any, shape: ViTShape) -> Any:
    """The same sizes in transformers' words."""
    return transformers.ViTConfig(
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        hidden_size=shape.embed_dim,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.num_heads,
        intermediate_size=shape.block.mlp_dim,
        layer_norm_eps=shape.block.norm_eps,
        qkv_bias=shape.qkv_bias,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=shape.num_classes,
        attn_implementation="sdpa",
    )
