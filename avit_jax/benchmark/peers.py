"""PyTorch's ViT of the same size as a peer: transformers' or timm's, eager or compiled.

On the machine's CPU or NVIDIA GPU, wherever JAX runs. PyTorch is imported when a peer is made.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from avit_jax.errors import UserError
from avit_jax.models.vit import ViTShape

# What `torch.compile` is told; `None` is eager. "graphs" is with CUDA graphs, the others without.
MODES = {
    "eager": None,
    "compile": "default",
    "graphs": "reduce-overhead",
    "autotune": "max-autotune-no-cudagraphs",
}
LIBRARIES = {"": "transformers", "timm_": "timm"}  # by the prefix of a peer's name
MODULES = {"transformers": "transformers.models.vit.modeling_vit", "timm": "timm"}
PEERS = tuple(prefix + mode for prefix in LIBRARIES for mode in MODES)


def library_of(kind: str) -> str:
    """The package that a peer's network is from; raises UserError for an unknown peer."""
    if kind not in PEERS:
        raise UserError(f"peer {kind!r} is unknown: write some of {', '.join(PEERS)}.")
    return LIBRARIES["timm_" if kind.startswith("timm_") else ""]


def available(kind: str = "eager") -> bool:
    """Whether PyTorch and a peer's library are there."""
    return all(map(importlib.util.find_spec, ("torch", library_of(kind))))


def usable(platform: str) -> tuple[str, ...]:
    """The peers that can run beside JAX on a platform, on this machine as it is."""
    if platform not in ("cpu", "gpu"):
        return ()
    found = tuple(kind for kind in PEERS if available(kind) and _starts(kind))
    if platform == "cpu":
        return tuple(kind for kind in found if not kind.endswith("graphs"))
    return found if found and importlib.import_module("torch").cuda.is_available() else ()


def _starts(kind: str) -> bool:
    """Whether a library that is there can be imported: it may not fit the PyTorch beside it."""
    try:
        importlib.import_module(MODULES[library_of(kind)])
    except (ImportError, RuntimeError):
        return False
    return True


def packages(kinds: Sequence[str]) -> tuple[str, ...]:
    """What the figures of these peers depend on, where it is installed."""
    installed = dict.fromkeys(library_of(kind) for kind in kinds if available(kind))
    return ("torch", *installed) if installed else ()


def device_for(kind: str, platform: str) -> str:
    """Where a peer runs so that it meets JAX on the same hardware, as PyTorch names it.

    Raises:
        UserError: the packages are missing, or PyTorch does not reach the hardware.
    """
    if not available(kind):
        raise UserError(
            f"PyTorch or {library_of(kind)} is missing: install the extra `benchmark`, or leave "
            "config.benchmark.peers empty."
        )
    if platform == "cpu":
        if kind.endswith("graphs"):
            raise UserError(
                f"peer {kind!r} is compiled with CUDA graphs, which a CPU does not have: leave it "
                "out of config.benchmark.peers."
            )
        return "cpu"
    if platform == "gpu" and jax.device_count() > 1:
        raise UserError(
            f"JAX shares its batches among {jax.device_count()} GPUs, and PyTorch's peers run on "
            "one: start with CUDA_VISIBLE_DEVICES=0, or leave config.benchmark.peers empty."
        )
    if platform != "gpu" or not importlib.import_module("torch").cuda.is_available():
        raise UserError(
            f"JAX runs on a {platform}, and PyTorch does not reach one here: install a build of "
            "PyTorch for CUDA on an NVIDIA GPU, or leave config.benchmark.peers empty."
        )
    return "cuda"


def prepare(device: str) -> Any:
    """PyTorch, set up as JAX is: threads, products of float32, nothing compiled for other sizes."""
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    if device == "cuda":  # JAX shortens such products to TF32 unless it is told otherwise
        exact = jax.config.jax_default_matmul_precision in ("highest", "float32")
        torch.set_float32_matmul_precision("highest" if exact else "high")
    return torch


def compiled(torch: Any, kind: str, function: Any) -> Any:
    """A network or function as a peer of this kind runs it, for one size only."""
    mode = MODES[kind.removeprefix("timm_")]
    return function if mode is None else torch.compile(function, mode=mode, dynamic=False)


def repeated(
    torch: Any, kind: str, device: str, function: Callable[[], Any], calls: int
) -> Callable[[], None]:
    """`calls` calls of a function in a row, waited for once, behind the last."""

    def run() -> None:
        for _ in range(calls):
            if kind.endswith("graphs"):  # what the call before returned is not needed any more
                torch.compiler.cudagraph_mark_step_begin()
            function()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def peer(
    kind: str, shape: ViTShape, images: np.ndarray, *, platform: str, calls: int = 1
) -> Callable[[], None]:
    """Dense inference on `images` `[B, H, W, 3]`, so many times in a row.

    Args:
        kind: one of `PEERS`.
        shape: sizes and dtype.
        images: normalised.
        platform: that JAX runs on, as it names it.
        calls: of the network in one call of what is returned.

    Raises:
        UserError: unknown kind, it cannot run here, or it has no such network.
    """
    device = device_for(kind, platform)
    _refuse_other_networks(kind, shape)
    torch = prepare(device)
    dtype = getattr(torch, shape.dtype)
    model = network(kind, shape).eval().to(device=device, dtype=dtype)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device, dtype)
    function = compiled(torch, kind, model)

    def predict() -> None:
        with torch.inference_mode():
            function(pixels)

    return repeated(torch, kind, device, predict, calls)


def _refuse_other_networks(kind: str, shape: ViTShape) -> None:
    """Raises UserError where a peer's network would not be the same as ours."""
    of_timm = library_of(kind) == "timm"
    added = {"qk_norm": shape.qk_norm, "layer_scale": shape.layer_scale is not None}
    usual = {"attention": "dot", "norm": "layernorm"}
    other = [name for name, value in usual.items() if getattr(shape, name) != value]
    other += [] if of_timm else [name for name, on in added.items() if on]
    if other:
        raise UserError(
            f"{other[0]} of the model is {getattr(shape, other[0])!r}, which {library_of(kind)}'s "
            f"ViT does not have: leave {kind!r} out of config.benchmark.peers."
        )


def network(kind: str, shape: ViTShape) -> Any:
    """A peer's network of the same sizes, a module of PyTorch whose calls return logits."""
    library = importlib.import_module(library_of(kind))
    if library_of(kind) == "timm":
        return library.models.vision_transformer.VisionTransformer(
            img_size=shape.image_size,
            patch_size=shape.patch_size,
            embed_dim=shape.embed_dim,
            depth=shape.depth,
            num_heads=shape.num_heads,
            mlp_ratio=shape.block.mlp_dim / shape.embed_dim,
            qkv_bias=shape.qkv_bias,
            qk_norm=shape.qk_norm,
            init_values=shape.layer_scale,
            num_classes=shape.num_classes,
        )
    torch = importlib.import_module("torch")

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vit = library.ViTForImageClassification(vit_config(library, shape))

        def forward(self, pixels: Any) -> Any:
            return self.vit(pixels).logits

    return Logits()


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
