"""A-ViT: scores, halting, states, losses and gradients in both readings of the prior's mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import jax
import numpy as np

import avit_jax
from avit_jax.losses import classification
from avit_jax.methods.base import Model
from tests.parity.golden import FOLDER, Difference, compacted, difference, gradients, group, load

CASES = tuple(sorted(file.stem for file in (FOLDER / "avit").glob("*.npz")))
# The published reading of the mean scores keeps the class token and drops the first image; ours
# drops class and distillation token. With a distillation token the files have no gradients of ours.
READINGS = {"paper": "nocls", "upstream": "quirk"}


def model_of(golden: Mapping[str, np.ndarray], reading: str = "paper") -> Model:
    """The model a golden file was recorded from."""
    cfg = {name: value.item() for name, value in group(golden, "cfg/").items()}
    infix = "_distilled" if cfg["distilled"] else ""
    return avit_jax.create_model(
        f"avit_tiny{infix}_patch16_224",
        image_size=cfg["img_size"],
        num_classes=cfg["num_classes"],
        qkv_bias=bool(cfg["qkv_bias"]),
        **{name: cfg[name] for name in ("patch_size", "embed_dim", "depth", "num_heads")},
        method={
            "gate_scale": cfg["gate_scale"],
            "gate_center": cfg["gate_center"],
            "eps": cfg["halting_eps"],
            "ponder_weight": cfg["ponder_token_scale"],
            "prior_weight": cfg["distr_prior_alpha"],
            "target_depth": cfg["target_depth"],
            "prior_compat": "nvlabs",
            "kl_reading": reading,
        },
    )


def differences(case: str) -> Iterator[Difference]:
    """Every comparison with one recorded file; exact ones allow 0."""
    golden = load(f"avit/{case}")
    model = model_of(golden)
    params = model.from_torch(group(golden, "param/"))
    images = golden["in/images"].transpose(0, 2, 3, 1)
    output = jax.jit(lambda p, x: model.apply(p, x, features=True))(params, images)
    yield from _forward(golden, output)
    yield from compacted(model, params, images, output)
    yield from _losses_and_gradients(golden, params, images)


def _forward(golden: Mapping[str, np.ndarray], output: avit_jax.Output) -> Iterator[Difference]:
    aux = output.aux
    answer = np.einsum("lbn,lbnd->bnd", aux["weights"], aux["features"])
    ours = {
        "logits": (output.logits, 2e-5),
        "halting_scores": (aux["halting_scores"], 2e-5),
        "mask": (aux["mask"], 0.0),
        "c_token": (aux["cumulative"], 5e-5),
        "R_token": (aux["remainder"], 5e-5),
        "rho_token": (aux["ponder"], 5e-5),
        "counter_token": (aux["halting_depth"], 0.0),
        "block_out": (aux["features"], 1e-4),
        "output_prenorm": (answer, 1e-4),
    }
    if "out/logits_dist" in golden:
        ours["logits_cls"] = (aux["head_logits"][0], 2e-5)
        ours["logits_dist"] = (aux["head_logits"][1], 2e-5)
    for name, (array, allowed) in ours.items():
        yield difference(name, array, golden[f"out/{name}"], allowed)
    yield difference("ponder", output.metrics["ponder"], golden["loss/ponder"], 1e-5)


def _losses_and_gradients(
    golden: Mapping[str, np.ndarray], params: dict, images: np.ndarray
) -> Iterator[Difference]:
    models = {reading: model_of(golden, reading) for reading in READINGS}
    targets = classification.soft_targets(golden["in/labels"], models["paper"].shape.num_classes)

    def quantities(params: dict) -> tuple[dict, dict]:
        found = {}
        for reading, model in models.items():
            output = model.apply(params, images)
            task = classification.cross_entropy(output.logits, targets).mean()
            found["ce"], found["ponder"] = task, output.metrics["ponder"]
            found[f"kl, {reading}"] = output.metrics["prior_divergence"]
            found[f"total, {reading}"] = task + sum(output.penalties.values())
        return found, found

    grads, values = jax.jit(jax.jacrev(quantities, has_aux=True))(params)
    distilled = models["paper"].shape.distilled
    for name, value in values.items():
        part, _, reading = name.partition(", ")
        key = f"{part}_{READINGS[reading]}" if reading else part
        ours_only = distilled and reading == "paper"
        if ours_only and part == "kl":
            key = "kl_nocls_nodist"
        elif ours_only:
            continue
        yield difference(name, value, golden[f"loss/{key}"], 1e-5)
        below = {"total_quirk": "grad_total/"}.get(key, f"grad_{key}/")
        recorded = group(golden, below)
        if recorded:
            ours = models["paper"].to_torch(grads[name])
            yield gradients(f"gradients of {name}", ours, recorded)
