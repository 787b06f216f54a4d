"""AdaViT: decisions, states, losses and gradients, on DeiT and on T2T-ViT, and upstream's flags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from avit_jax.losses import classification
from avit_jax.methods import adavit
from avit_jax.methods.adavit.decisions import KINDS
from avit_jax.methods.adavit.usage_losses import UsageLoss
from avit_jax.models.t2t import T2TShape
from avit_jax.models.vit import ViTShape
from avit_jax.types import Output
from tests.parity.golden import Difference, compacted, difference, gradients, group, load

EVALUATED = ("tiny_deit_eval", "tiny_deit_edge_all_dropped", "tiny_t2t_eval")
TRAINED = ("tiny_deit_train", "tiny_t2t_train")
FLAGS = "tiny_deit_flag_variants"
CASES = (*EVALUATED, *TRAINED, FLAGS)
# What upstream calls each kind of decision.
THEIRS = {"heads": "head", "layers": "layer", "tokens": "token"}
# Upstream's flags as settings; the first two compute the same in different ways.
VARIANTS = {
    "released": {},
    "dyna_data": {},
    "head_v2": {"head_effect": "hidden"},
    "head_attn_only": {"head_effect": "attention"},
    "token_without_mlp": {"every_token_in_mlp": True},
    "head_only": {"layers": False, "tokens": False},
    "layer_only": {"heads": False, "tokens": False},
    "token_only": {"heads": False, "layers": False},
    "keep_layers_2": {"keep_layers": 2},
    "token_start_layer_2": {"token_start_layer": 2},
    "static": {"heads": False, "layers": False, "tokens": False},
}
WEIGHTINGS = ("ada_main_default", "class_default", "all_on")


def recorded(case: str) -> dict[str, np.ndarray]:
    """A file's arrays; weights and what else it lacks are those of its family's evaluation."""
    family = case.split("_")[1]
    return load(f"adavit/tiny_{family}_eval") | load(f"adavit/{case}")


def weights(golden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Under upstream's names."""
    return group(golden, "param/") | group(golden, "param_override/")


def images(golden: Mapping[str, np.ndarray]) -> np.ndarray:
    """`[B, H, W, 3]`."""
    return golden["in/x"].transpose(0, 2, 3, 1)


def model_of(golden: Mapping[str, np.ndarray], **settings: Any) -> adavit.Model:
    """The model a file was recorded from."""
    cfg = {name: value.item() for name, value in group(golden, "cfg/").items()}
    names = ("embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "num_classes")
    sizes = {"image_size": cfg["img_size"], **{name: cfg[name] for name in names}}
    if cfg["use_t2t"]:
        # The published 0.1 was off while these files were recorded.
        shape = T2TShape(**sizes, token_dim=cfg["token_dim"], token_dropout_rate=0.0)
    else:
        shape = ViTShape(**sizes, patch_size=cfg["patch_size"])
    return adavit.Model(shape, adavit.Settings(**settings))


def differences(case: str) -> Iterator[Difference]:
    """Every comparison with one recorded file; exact ones allow 0."""
    golden = recorded(case)
    if case == FLAGS:
        yield from _variants(golden)
    elif case in TRAINED:
        yield from _training(golden)
    else:
        yield from _evaluation(golden)


def _evaluation(golden: Mapping[str, np.ndarray]) -> Iterator[Difference]:
    model, batch = model_of(golden), images(golden)
    params = model.from_torch(weights(golden))
    output = jax.jit(lambda p, x: model.apply(p, x, features=True))(params, batch)
    yield from _forward(golden, output)
    yield from compacted(model, params, batch, output)


def _forward(golden: Mapping[str, np.ndarray], output: Output) -> Iterator[Difference]:
    aux = output.aux
    yield difference("logits", output.logits, golden["out/logits"], 2e-5)
    states = aux["features"].swapaxes(0, 1)
    yield difference("block_out", states, golden["out/block_out"], 1e-4)
    attention = golden["out/attn_pre_token_select"][:, :, :, 0]
    yield difference("attention", aux["attention"].swapaxes(0, 1), attention, 2e-5)
    for theirs in THEIRS.values():
        name = f"{theirs}_select"
        yield difference(name, *_last(aux[name], golden[f"out/{name}"]), 0.0)
        name, logits = f"{theirs}_logits", aux[f"{theirs}_policy"]
        yield difference(name, *_last(logits, golden[f"out/{name}"]), 1e-4)


def _last(ours: jax.Array, theirs: np.ndarray) -> tuple[jax.Array, np.ndarray]:
    """Ours `[L, B, ...]` and theirs `[B, <= L, ...]`, which lacks blocks without the policy."""
    return ours[-theirs.shape[1] :].swapaxes(0, 1), theirs


def _training(golden: Mapping[str, np.ndarray]) -> Iterator[Difference]:
    models = {
        name: model_of(golden, **_losses(group(golden, f"loss/{name}/cfg/"))) for name in WEIGHTINGS
    }
    model, batch, noise = models[WEIGHTINGS[0]], images(golden), _noise(golden)
    params = model.from_torch(weights(golden))

    def quantities(params: dict) -> tuple[dict, tuple]:
        output = model.apply(params, batch, train=True, noise=noise, features=True)
        task = classification.cross_entropy(output.logits, golden["in/soft_target"]).mean()
        # One forward pass for all weightings.
        decided = {kind: output.aux[f"{theirs}_select"] for kind, theirs in THEIRS.items()}
        parts = {name: m.penalties(output.aux | decided, 1.0)[0] for name, m in models.items()}
        parts[WEIGHTINGS[0]] = output.penalties
        totals = {name: task + sum(part.values()) for name, part in parts.items()}
        return totals, (totals, output, task, parts)

    program = jax.jit(jax.jacrev(quantities, has_aux=True))
    grads, (totals, output, task, parts) = program(params)
    yield from _forward(golden, output)
    for name, m in models.items():
        below = f"loss/{name}/"
        yield difference(f"base_loss, {name}", task, golden[f"{below}base_loss"], 1e-5)
        for kind, theirs in THEIRS.items():
            loss = parts[name][kind] / getattr(m.settings, f"{kind}_loss").weight
            key = f"{theirs}_loss"
            yield difference(f"{key}, {name}", loss, golden[below + key], 1e-5)
        yield difference(f"total, {name}", totals[name], golden[f"{below}total"], 2e-5)
        yield gradients(
            f"gradients, {name}", m.to_torch(grads[name]), group(golden, f"grad/{name}/")
        )


def _losses(cfg: Mapping[str, np.ndarray]) -> dict[str, UsageLoss]:
    """Upstream's weights as settings."""

    def loss(theirs: str) -> UsageLoss:
        value = {name[len(theirs) + 1 :]: float(v) for name, v in cfg.items() if theirs in name}
        return UsageLoss(
            weight=value["loss_ratio"],
            target=value["target_ratio"],
            diversity=value.get("diverse_ratio", 0.0),
            entropy=value.get("entropy_weight", 0.0),
            minimum=value["minimal"],
            # Ours is a mean over the five images, theirs a sum.
            minimum_weight=value["minimal_weight"] * (5 if theirs == "token" else 1),
        )

    return {f"{kind}_loss": loss(theirs) for kind, theirs in THEIRS.items()}


def _noise(golden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The recorded Gumbel samples as differences `[L, B, ...]`; 0 where nothing is decided."""
    depth, noise = int(golden["cfg/depth"]), {}
    for kind in KINDS:
        drawn = {
            block: golden[f"noise/block{block}/{THEIRS[kind]}/g1"]
            - golden[f"noise/block{block}/{THEIRS[kind]}/g2"]
            for block in range(depth)
            if f"noise/block{block}/{THEIRS[kind]}/g1" in golden
        }
        nothing = np.zeros_like(drawn[depth - 1])
        rows = np.stack([drawn.get(block, nothing) for block in range(depth)])
        noise[kind] = rows[..., 0] if kind == "tokens" else rows
    return noise


def _variants(golden: Mapping[str, np.ndarray]) -> Iterator[Difference]:
    batch, state_dict = images(golden), weights(golden)
    for name, settings in VARIANTS.items():
        model, theirs = model_of(golden, **settings), group(golden, f"{name}/")
        params = model.from_torch(state_dict)
        output = jax.jit(lambda p, x, m=model: m.apply(p, x, features=True))(params, batch)
        yield difference(f"{name}, logits", output.logits, theirs["logits"], 2e-5)
        states = output.aux["features"][:, :, 0].swapaxes(0, 1)
        yield difference(f"{name}, block_cls", states, theirs["block_cls"], 1e-4)
        decided = [kind for kind in KINDS if getattr(model.settings, kind)]
        assert {f"{THEIRS[kind]}_select" for kind in decided} == theirs.keys() & {
            f"{kind}_select" for kind in THEIRS.values()
        }
        for kind in decided:
            key = f"{THEIRS[kind]}_select"
            yield difference(f"{name}, {key}", *_last(output.aux[key], theirs[key]), 0.0)
        for found in compacted(model, params, batch, output):
            yield found._replace(name=f"{name}, {found.name}")
