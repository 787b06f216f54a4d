"""Largest difference of logits between this package and PyTorch, for the same weights and images.

    pip install -e '.[benchmark]' && python benchmarks/torch_parity.py --models tiny,small

The peer is transformers' ViT, or its distilled DeiT with both classifiers. All its parameters are
drawn at random (fresh biases and norms would hide mistakes), and the images are random too. Its
weights go through real files, as transformers has them: one of `torch.save` (names of its modules)
and the folder of `save_pretrained` (names of the hub). Then other ones go the other way, through
files that this package writes in both kinds of names, which transformers reads strictly. Both sides
compute in float32, once; nothing is timed.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from avit_jax import create_model
from avit_jax.models.vit import ViTShape
from avit_jax.pretrained.torch_writer import save_torch
from avit_jax.pretrained.weights import load_torch
from avit_jax.runtime.tables import columns

ALLOWED = 2e-5


class Comparison(NamedTuple):
    """Logits of both sides, `[B, C]`, where each image is shown to both."""

    ours: np.ndarray
    theirs: np.ndarray

    @property
    def difference(self) -> float:
        """Largest absolute difference."""
        return float(np.abs(self.ours - self.theirs).max())


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


def compare(name: str, *, batch_size: int, seed: int) -> dict[str, Comparison]:
    """Runs both sides on the same weights and images, by the way that the weights went."""
    import torch

    model = create_model(name)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch_size, 3, *2 * (model.shape.image_size,), generator=generator)
    apply = jax.jit(lambda params, images: model.apply(params, images).logits)
    pixels = images.permute(0, 2, 3, 1).numpy()
    found = {}

    def both(params: Any, network: Any) -> Comparison:
        with torch.no_grad():
            theirs = network(images).logits.numpy()
        return Comparison(np.asarray(apply(params, pixels)), theirs)

    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        network = peer(model.shape, generator)
        torch.save({"model": network.state_dict()}, folder / "theirs.pth")
        params = model.from_torch(load_torch(folder / "theirs.pth"))
        found["torch.save to ours"] = both(params, network)
        network.save_pretrained(folder / "theirs")
        params = model.from_torch(load_torch(folder / "theirs"))
        found["save_pretrained to ours"] = both(params, network)

        other = peer(model.shape, generator)  # with weights that nothing of which must stay
        params = model.from_torch(other.state_dict())
        save_torch(folder / "ours.pth", model.to_torch(params, layout="transformers5"))
        network.load_state_dict(torch.load(folder / "ours.pth", weights_only=True), strict=True)
        found["ours to load_state_dict"] = both(params, network)
        ours = folder / "ours"
        other.config.save_pretrained(ours)
        save_torch(ours / "model.safetensors", model.to_torch(params, layout="transformers"))
        network, report = type(other).from_pretrained(ours, output_loading_info=True)
        if any(report.values()):
            raise SystemExit(f"transformers does not take all names: {report}")
        found["ours to from_pretrained"] = both(params, network.eval())
    return found


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
            compared = compare(name, batch_size=options.batch_size, seed=options.seed)
            for way, found in compared.items():
                worst = max(worst, found.difference)
                largest = float(np.abs(found.theirs).max())
                difference, allowed = f"{found.difference:.1e}", f"{ALLOWED:.0e}"
                rows.append((name, way, difference, f"{largest:.2f}", allowed))
    print(
        f"torch {version('torch')}, transformers {version('transformers')}, jax {jax.__version__}"
    )
    print(columns(("model", "weights", "largest difference", "largest logit", "allowed"), rows))
    raise SystemExit(worst > ALLOWED)


if __name__ == "__main__":
    main()
