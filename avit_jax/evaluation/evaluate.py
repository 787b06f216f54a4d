"""Exact evaluation: every image of a split counted once, whatever the batch and device count.

Rows that only fill up the last batch, and images that could not be read, weigh nothing. Sums are
taken on the device per batch and added up on the host in float64.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.evaluation.right_answers import RightAnswers, verdicts
from avit_jax.execution.plan import Plan
from avit_jax.methods.base import Model
from avit_jax.methods.per_image import finest_stage, num_layers, per_image
from avit_jax.models import skippable_parts
from avit_jax.models.functional import Params
from avit_jax.runtime import processes
from avit_jax.runtime.device_mesh import platform_of, replicated, shard_batch
from avit_jax.runtime.whole_weights import splitting
from avit_jax.types import Output

logger = logging.getLogger(__name__)

EvalStep = Callable[..., dict[str, Array]]


def make_eval_step(model: Model, mesh: Mesh, *, execution: str = "masked") -> EvalStep:
    """Jitted sums over one batch (`image`, `label`, `valid`) for `summarise`.

    The step also takes `settings` of the method's dial, as data: they compile nothing anew.
    """
    model = model.on(platform_of(mesh))

    def eval_step(
        params: Params, batch: dict[str, Array], settings: dict[str, float] | None = None
    ) -> dict[str, Array]:
        images = normalise(batch["image"])
        with splitting(mesh):
            output = model.apply(params, images, execution=execution, settings=settings)
        return sums(model, output, batch["label"], batch["valid"], verdicts(batch))

    return jax.jit(eval_step, out_shardings=replicated(mesh))


def make_predictor_step(
    model: Model, params: Params, mesh: Mesh, *, batch_size: int, execution: str, plan: Plan | None
) -> EvalStep:
    """The same through compiled inference; `params` are compiled in, the step ignores its own."""
    predict = model.compile(
        params, batch_size=batch_size, execution=execution, plan=plan, mesh=mesh
    )
    add_up = jax.jit(
        lambda output, batch: sums(model, output, batch["label"], batch["valid"], verdicts(batch)),
        out_shardings=replicated(mesh),
    )

    def eval_step(params: Params, batch: dict[str, Array]) -> dict[str, Array]:
        return add_up(predict.run(normalise(batch["image"]), batch["valid"]), batch)

    return eval_step


def sums(
    model: Model,
    output: Output,
    labels: Array,
    valid: Array,
    beside: dict[str, Array] | None = None,
) -> dict[str, Array]:
    """Sums over the valid images of a batch, of everything that `summarise` needs.

    `beside` is what `verdicts` finds beside the labels.
    """
    beside = dict(beside or {})
    unlabelled = beside.pop("unlabelled", None)
    num_classes, answers = model.shape.num_classes, RightAnswers(labels=labels, **beside)
    said = per_image(model, output)
    depth = said.token_depth
    # Differences from the dense cost keep the sum of squares well conditioned in float32.
    saved = model.dense_gmacs() - said.gmacs
    dropped = jnp.zeros(len(labels)) if said.dropped is None else said.dropped
    kept = {f"{name}_kept": share for name, share in said.kept.items()}
    figures = kept | {
        "top1": answers.hits(output.logits, k=1),
        "top5": answers.hits(output.logits, k=5),
        "cross_entropy": answers.cross_entropy(output.logits),
        "saved_gmacs": saved,
        "saved_gmacs_squared": saved**2,
        "mean_depth": said.depth,
        "dropped_images": dropped > 0,
        "not_finite": ~jnp.isfinite(said.confidence),
    }
    totals = {
        name: jnp.where(valid, values.astype(jnp.float32), 0.0).sum()
        for name, values in figures.items()
    }
    layers = jnp.arange(1, num_layers(model) + 1)
    counts = (depth[:, :, None] == layers) & valid[:, None, None]
    if output.exits is not None:
        by_exit = jax.vmap(lambda logits: answers.hits(logits, k=1))(output.exits)
        left = said.exit == jnp.arange(len(by_exit))[:, None]
        of_exits = {"exit_top1": by_exit, "exit_share": left}
        totals |= {name: (valid & images).sum(1) for name, images in of_exits.items()}
        totals["exit_gmacs"] = jnp.where(valid, model.gmacs_by_exit(output), 0.0).sum(1)
    in_class = jax.nn.one_hot(labels, num_classes) * valid[:, None]
    of_class = {f"class_{name}": share for name, share in kept.items()}
    of_class["class_depth"] = said.depth
    totals |= {name: (in_class * values[:, None]).sum(0) for name, values in of_class.items()}
    if unlabelled is not None:
        totals["unlabelled"] = unlabelled.sum()
    return totals | {
        "count": valid.sum(),
        "depth_histogram": counts.sum((0, 1)),
        "class_count": in_class.sum(0),
    }


def evaluate(
    eval_step: EvalStep,
    params: Params,
    batches: Iterable[dict[str, np.ndarray]],
    mesh: Mesh,
    *,
    model: Model,
    strict: bool = False,
) -> dict[str, Any]:
    """Run a split and return its figures.

    Args:
        eval_step: from `make_eval_step`.
        params: on the mesh.
        batches: this process's rows, each batch with `image`, `label` and `valid`, and with
            `VERDICTS` of data that have them.
        mesh: of the run.
        model: for its costs.
        strict: whether answers that are not finite are an error; else a warning counts them.

    Returns:
        See `summarise`, plus `images_per_second` of everything (decoding included), without the
        first batch, which compiles.

    Raises:
        UserError: the split has no readable image, or see `strict`.
    """
    totals: dict[str, np.ndarray] = {}
    start, first, begun = None, 0, None

    def add(begun: dict[str, Array] | None) -> None:
        for name, value in jax.device_get(begun or {}).items():
            totals[name] = totals.get(name, 0) + np.asarray(value, np.float64)

    for batch in batches:
        kept = {name: batch[name] for name in ("image", "label", "valid")} | verdicts(batch)
        before, begun = begun, eval_step(params, shard_batch(kept, mesh))
        if start is None:
            first = int(begun["count"])
            start = time.perf_counter()
        add(before)  # while the device computes
    add(begun)
    timed_images = int(totals["count"]) - first if totals else 0
    if not totals or not totals["count"]:
        raise UserError(
            "the evaluation split has no readable image: check config.data.eval_split and the "
            "files named above."
        )
    if broken := int(totals["not_finite"]):
        said = (
            f"the model answers {broken:,} of {int(totals['count']):,} images with numbers that "
            "are not finite"
        )
        if strict:
            raise UserError(
                f"{said}: use weights from before the training diverged, or float32 arithmetic "
                "(--config.model.dtype float32)."
            )
        logger.warning("%s.", said)
    seconds = time.perf_counter() - start if start is not None else 0.0
    results = summarise(totals, model)
    results["images_per_second"] = timed_images / seconds if timed_images else None
    return results


def last_logged(metrics: Path) -> int:
    """The step of the last evaluation in `metrics.jsonl`, which process 0 reads; 0 if none."""
    at = 0
    if jax.process_index() == 0 and metrics.exists():
        lines = map(json.loads, metrics.read_text().splitlines())
        at = max((line["step"] for line in lines if line["kind"] == "eval"), default=0)
    return int(processes.gather(np.asarray(at))[0])


def summarise(totals: dict[str, np.ndarray], model: Model) -> dict[str, Any]:
    """Figures of a split from its summed counts.

    Returns:
        `images` (count), `top1` and `top5` (shares), `cross_entropy` (nats), `mean_depth` (layers
        per token), `dropped_images` (share that lost tokens for want of places), `halted` (share of
        token-layers that did not run), `gmacs`, `gmacs_std` (per image, over images),
        `gmacs_dense`, `depth_histogram` (share of the tokens that went through 1, 2, ..., L layers;
        what is missing to 1 went through none), `class_mean_depth` (`None` for a class without an
        image). For each part that the method may leave out (`skippable_parts.PARTS`) also
        `PART_kept`, the share that ran over all blocks and images, and `class_PART_kept`. Of models
        with several exits `exit_top1`, the accuracy if all images had to be answered by each exit
        at the latest, `exit_share`, the share that it answered for, and `exit_gmacs`, what an image
        needed up to and with it. Of data in which an image may have no right answer `unlabelled`,
        how many have none; they count nowhere else.
    """
    count = float(totals["count"])
    mean = {name: float(totals[name]) / count for name in totals if np.ndim(totals[name]) == 0}
    variance = max(0.0, mean["saved_gmacs_squared"] - mean["saved_gmacs"] ** 2)
    histogram = totals["depth_histogram"] / (count * finest_stage(model).num_tokens)
    kept = [f"{part}_kept" for part in skippable_parts.PARTS if f"{part}_kept" in totals]

    def of_classes(name: str) -> list[float | None]:
        pairs = zip(totals[name], totals["class_count"], strict=True)
        return [float(value / number) if number else None for value, number in pairs]

    return {
        "images": int(count),
        "top1": mean["top1"],
        "top5": mean["top5"],
        "cross_entropy": mean["cross_entropy"],
        "mean_depth": mean["mean_depth"],
        "dropped_images": mean["dropped_images"],
        "halted": 1.0 - mean["mean_depth"] / num_layers(model),
        "gmacs": model.dense_gmacs() - mean["saved_gmacs"],
        "gmacs_std": variance**0.5,
        "gmacs_dense": model.dense_gmacs(),
        "depth_histogram": histogram.tolist(),
        "class_mean_depth": of_classes("class_depth"),
        **({"unlabelled": int(totals["unlabelled"])} if "unlabelled" in totals else {}),
        **{name: mean[name] for name in kept},
        **{
            name: (totals[name] / count).tolist()
            for name in ("exit_top1", "exit_share", "exit_gmacs")
            if name in totals
        },
        **{f"class_{name}": of_classes(f"class_{name}") for name in kept},
    }
