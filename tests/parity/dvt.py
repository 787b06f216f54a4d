"""DVT: every exit of cascades on DeiT and on T2T-ViT, what is handed over, losses, gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from avit_jax.losses import classification
from avit_jax.methods import dvt, plain
from avit_jax.methods.dvt import exit_quotas, hand_over
from avit_jax.methods.dvt.weight_names import exit_names
from avit_jax.methods.forward import Call
from avit_jax.models import functional
from avit_jax.models.grid_resize import resize_matrix
from avit_jax.models.t2t import T2TShape
from avit_jax.models.vit import ViTShape
from tests.parity.golden import Difference, difference, gradients, group, load

CASCADES = ("tiny_deit_3exit", "tiny_deit_2exit", "tiny_t2t_3exit", "tiny_t2t_2exit")
DYNAMIC = ("dynamic_eval_3exit", "dynamic_eval_2exit", "dynamic_eval_small_edge")
CASES = (*CASCADES, *DYNAMIC)
ALLOWED = 1e-4


def model_of(golden: Mapping[str, np.ndarray]) -> dvt.Model:
    """The model a file was recorded from."""
    exits = exit_names(int(golden["cfg/num_exits"]))
    cfg = {name: value.item() for name, value in group(golden, f"cfg/{exits[-1]}/").items()}
    sizes = {name: cfg[name] for name in ("embed_dim", "depth", "num_heads")}
    sizes |= {"mlp_ratio": cfg["mlp_hidden"] / cfg["embed_dim"], "num_classes": 10}
    if golden["cfg/family_t2t"]:
        # The published 0.1 was off while these files were recorded.
        shape = T2TShape(**sizes, token_dim=cfg["token_dim"], token_dropout_rate=0.0)
    else:
        shape = ViTShape(**sizes)
    grids = [int(golden[f"cfg/{name}/num_tokens"]) ** 0.5 for name in exits]
    settings = dvt.Settings(grids=tuple(map(int, grids)))
    return dvt.Model(shape, settings, plain.Model(shape, plain.Settings()))


def differences(case: str) -> Iterator[Difference]:
    """Every comparison with one recorded file; exact ones allow 0."""
    golden = load(f"dvt/{case}")
    yield from _quotas(golden) if case in DYNAMIC else _cascade(golden)


def _cascade(golden: Mapping[str, np.ndarray]) -> Iterator[Difference]:
    model, images = model_of(golden), golden["in/x"].transpose(0, 2, 3, 1)
    exits = exit_names(len(model.exits))
    for source, target in itertools.pairwise(model.settings.grids):
        recorded = golden[f"resize/{source}to{target}"]
        yield difference(f"{source} to {target}", resize_matrix(source, target), recorded, 1e-7)
    params = model.from_torch(group(golden, "param/"))

    def loss(params: dict, images: Array) -> tuple[Array, Any]:  # one program for everything
        stages = _stages(model, params, images)
        answers = jnp.stack([stage["logits"] for stage in stages])
        losses = classification.cross_entropy(answers, golden["train/soft_target"]).mean(-1)
        return jnp.asarray(model.exit_weights) @ losses, (stages, losses)

    grads, (found, losses) = jax.jit(jax.grad(loss, has_aux=True))(params, images)
    yield difference("loss", losses.sum(), golden["train/loss_total"], ALLOWED)
    yield difference("loss of each exit", losses, golden["train/loss_per_exit"], ALLOWED)
    recorded = group(golden, "train/grad/")
    # Scores that move alike change nothing, so a bias on them has a gradient of rounding alone.
    yield gradients("gradients", model.to_torch(grads), recorded, negligible=1e-6)
    for ours, exit_name in zip(found, exits, strict=True):
        recorded = group(golden, f"out/{exit_name}/")
        assert set(recorded) <= set(ours), set(recorded) - set(ours)
        for name, array in recorded.items():
            # Of what is large, some is recorded of the first image alone.
            part = ours[name][: len(array)] if name == "context_embedding" else ours[name]
            yield difference(f"{exit_name}, {name}", part, array, ALLOWED)
    if not golden["cfg/family_t2t"]:  # whose programs take long to compile, and say the same
        output = jax.jit(model.apply)(params, images)
        theirs = np.stack([golden[f"out/{name}/logits"] for name in exits])
        yield difference("answers of the whole cascade", output.exits, theirs, ALLOWED)


def _stages(model: dvt.Model, params: dict, images: Array) -> list[dict[str, Array]]:
    """What every exit computes on the way, under the names of the recorded files."""
    networks, found, before = functional.bind(model.build, params), [], None
    for index, one in enumerate(model.exits):
        part, prefix, ours = networks.exit(index), one.shape.num_prefix_tokens, {}
        reused = None if before is None else hand_over.reused(part, one.shape, before)
        call = Call(features=True, shown=("states", "relations"), reused=reused)
        output = one.forward(part, images, call)
        aux = output.aux
        # Those that are given class token included, and those that are not.
        ours["tokens"] = part.patches(images, None)
        ours["last_block_out"] = aux["states"]
        ours["block_cls"] = aux["features"][:, :, 0].swapaxes(0, 1)
        ours["cls_features"] = part.norm(aux["states"][:, :prefix])[:, 0]
        ours["logits"] = output.logits
        ours["relations_sample0"] = aux["relations"][:, 0]
        ours["relations_sample0_head0_lastblock"] = aux["relations"][-1, 0, 0]
        if before is not None:
            mixed = part.relation_reuse(before["relations"])[:, 0]
            ours["relation_conv_out_sample0"] = mixed.reshape(-1, *mixed.shape[2:])
            ours["relations_reused_sample0"] = reused.bias[:, 0]
            ours["relations_reused_sample0_lasthead_perblock"] = reused.bias[:, 0, -1]
            ours["context_embedding"] = reused.extra.swapaxes(0, 1)
        before = aux
        found.append(ours)
    return found


def _quotas(golden: Mapping[str, np.ndarray]) -> Iterator[Difference]:
    train, test = golden["train_logits"], golden["test_logits"]
    confidences = exit_quotas.confidences(train), exit_quotas.confidences(test)
    for name, ours in zip(("train_conf", "test_conf"), confidences, strict=True):
        yield difference(name, ours, golden[name], 1e-6)
    exits = len(train)
    shares = np.stack([exit_quotas.shares(p, exits) for p in golden["p_index"]])
    yield difference("exit_probs", shares, golden["exit_probs"], 1e-7)
    # Recorded confidences, for what is to be equal in every bit.
    thresholds = np.stack([exit_quotas.thresholds(golden["train_conf"], row) for row in shares])
    yield difference("thresholds", thresholds, golden["thresholds"], 0.0)
    counts = np.stack([exit_quotas.quotas(train.shape[1], row) for row in shares])
    yield difference("out_n", counts, golden["out_n"], 0.0)
    left = np.stack([exit_quotas.exits(golden["test_conf"], row) for row in thresholds])
    taken = np.stack([(left == number).sum(1) for number in range(exits)], axis=1)
    yield difference("test_exit_counts", taken, golden["test_exit_counts"], 0.0)
    right = test.argmax(-1) == golden["test_labels"]
    of_answer = np.stack([right[row, np.arange(len(row))] for row in left])
    yield difference("accuracy", 100 * of_answer.mean(1), golden["accuracy_percent"], 1e-4)
    flops = golden["flops_per_exit"][left].mean(1)
    yield difference("avg_flops", flops, golden["avg_flops"], 1e-5)
    anytime = golden["anytime_accuracy_percent"]
    yield difference("anytime accuracy", 100 * right.mean(1), anytime, 1e-4)
    exact = np.stack([exit_quotas.thresholds(confidences[0], row) for row in shares])
    yield difference("thresholds of our confidences", exact, golden["thresholds"], 1e-6)
