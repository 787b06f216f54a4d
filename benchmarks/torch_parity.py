"""Largest difference of logits between this package and PyTorch, for the same weights and images.

    pip install -e '.[benchmark]' && python benchmarks/torch_parity.py --models tiny,small

The peer is transformers' ViT, or its distilled DeiT with both classifiers. All its parameters are
drawn at random (fresh biases and norms would hide mistakes), its weights go through a real `.pth`
file that torch writes and this package reads, and the images are random too. Both sides compute in
float32, once; nothing is timed.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from avit_jax import create_model
from avit_jax.models.vit import ViTShape
from avit_jax.pretrained.weights import load_torch
from avit_jax.runtime.tables import columns

ALLOWED = 2e-5
# transformers' name -> timm's, in order; q, k and v are joined before.
RENAMES = [
    (r"^(vit|deit)\.", ""),
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^embeddings\.distillation_token", "dist_token"),
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^layers\.", "blocks."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
    (r"^(cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
]


class Comparison(NamedTuple):
    """Logits of both sides, `[B, C]`, where each image is shown to both."""

    ours: np.ndarray
    theirs: np.ndarray

    @property
    def difference(self) -> float:
        """Largest absolute difference."""
        return float(np.abs(self.ours - self.theirs).max())


def to_timm(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Transformers' tensors under timm's names."""
    import torch

    renamed = {}
    for name, tensor in state_dict.items():
        if ".attention.q_proj." in name:
            parts = [name.replace("q_proj", part) for part in ("q_proj", "k_proj", "v_proj")]
            name = name.replace(".attention.q_proj.", ".attn.qkv.")
            tensor = torch.cat([state_dict[part] for part in parts])
        elif ".attention.k_proj." in name or ".attention.v_proj." in name:
            continue
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def peer(shape: ViTShape, generator: Any) -> Any:
    """Transformers' model of a shape, all its parameters random."""
    import torch
    from transformers import (
        DeiTConfig,
        DeiTForImageClassificationWithTeacher,
        ViTConfig,
        ViTForImageClassification,
    )

    config_type, network_type = (
        (DeiTConfig, DeiTForImageClassificationWithTeacher)
        if shape.distilled
        else (ViTConfig, ViTForImageClassification)
    )
    config = config_type(
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        hidden_size=shape.embed_dim,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.num_heads,
        intermediate_size=shape.block.mlp_dim,
        layer_norm_eps=shape.block.norm_eps,
        num_labels=shape.num_classes,
    )
    network = network_type(config).eval()
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            # Weights keep the signal's size, the rest is as large as after training.
            scale = tensor[0].numel() ** -0.5 if tensor.ndim in (2, 4) else 0.2
            drawn = torch.randn(tensor.shape, generator=generator) * scale
            tensor.copy_(drawn + ("norm" in name and name.endswith("weight")))
    return network


def compare(name: str, *, batch_size: int, seed: int) -> Comparison:
    """Runs both sides on the same weights and images."""
    import torch

    model = create_model(name)
    generator = torch.Generator().manual_seed(seed)
    network = peer(model.shape, generator)
    images = torch.randn(batch_size, 3, *2 * (model.shape.image_size,), generator=generator)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "weights.pth"
        torch.save({"model": to_timm(network.state_dict())}, path)
        params = model.from_torch(load_torch(path))
    with torch.no_grad():
        theirs = network(images).logits.numpy()
    apply = jax.jit(lambda params, images: model.apply(params, images).logits)
    return Comparison(np.asarray(apply(params, images.permute(0, 2, 3, 1).numpy())), theirs)


def main() -> None:
    """Prints the table; the exit status says whether all differences are allowed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="tiny,small", help="sizes, separated by commas")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows, worst = [], 0.0
    for size in options.models.split(","):
        for infix in ("", "_distilled"):
            name = f"deit_{size}{infix}_patch16_224"
            found = compare(name, batch_size=options.batch_size, seed=options.seed)
            worst = max(worst, found.difference)
            largest = float(np.abs(found.theirs).max())
            rows.append((name, f"{found.difference:.1e}", f"{largest:.2f}", f"{ALLOWED:.0e}"))
    print(
        f"torch {version('torch')}, transformers {version('transformers')}, jax {jax.__version__}"
    )
    print(columns(("model", "largest difference", "largest logit", "allowed"), rows))
    raise SystemExit(worst > ALLOWED)


if __name__ == "__main__":
    main()
