"""Numbers that are not finite, in training and where a model answers; and clocks that jump.

A training stops, and the same command then ends as an undisturbed one, or it leaves the step out
and says so. No mode answers from weights that are not finite.
"""

from __future__ import annotations

import functools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from avit_jax.checkpoints.store import Checkpoints
from tests.survival.fault import FAILED, IDENTICAL, Fault, Outcome
from tests.survival.outcome import both, judge, nothing_lost
from tests.survival.pair import alike
from tests.survival.scene import NEWEST, STEPS, Scene, target_of

NEVER = 10**6  # a step that never comes
WHERE = ("loss", "gradient", "images", "update", "overflow")
MODES = ("train", "eval", "predict", "visualize", "export", "convert", "calibrate", "benchmark")


def spoil(where: str, step: int) -> None:
    """In the process of a command: something is not finite in one step of a training."""
    from avit_jax.training import optimizers
    from avit_jax.training import step as steps

    if where == "update":
        schedule = optimizers.learning_rate

        def learning_rate(*arguments: Any, **keywords: Any) -> Callable:
            rate = schedule(*arguments, **keywords)
            return lambda at: jnp.where(at == step, jnp.nan, rate(at))

        optimizers.learning_rate = learning_rate
        return
    make = steps.loss_function

    def loss_function(*arguments: Any) -> Callable:
        whole = make(*arguments)

        def loss(params: Any, images: Any, targets: Any, key: Any, progress: Any, **more: Any):
            is_bad = jnp.round(progress * STEPS) == step
            if where == "images":
                images = jnp.where(is_bad, jnp.nan, images)
            total, (logged, room) = whole(params, images, targets, key, progress, **more)
            if where == "loss":
                total += jnp.where(is_bad, jnp.nan, 0.0)
            if where == "overflow":
                total *= jnp.where(is_bad, 1e38, 1.0) ** 2
            if where == "gradient":  # that of a root at 0, of a loss that stays as it is
                nothing = sum(leaf.sum() for leaf in jax.tree.leaves(params)) * 0.0
                total += jnp.sqrt(jnp.where(is_bad, nothing, 1.0)) - jnp.where(is_bad, 0.0, 1.0)
            return total, (logged | {"loss": total}, room)

        return loss

    steps.loss_function = loss_function


def spoilt(scene: Scene, name: str, value: float) -> Path:
    """A copy of a prepared run whose newest checkpoint holds this number as all of its weights."""
    workdir = scene.copy(name)
    step = NEWEST[name]
    saved = Checkpoints(workdir / "checkpoints", keep=9)
    extra = saved.extra(step)
    _, state = saved.restore(target_of(workdir), step=step)
    shutil.rmtree(workdir / "checkpoints" / str(step))

    def spoil_leaf(leaf: Any) -> Any:
        return leaf * value if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    changed = Checkpoints(workdir / "checkpoints", keep=9)
    changed.save(step, jax.tree.map(spoil_leaf, state), extra=extra)
    changed.close()
    return workdir


def jump(clock: str, seconds: float, call: int) -> None:
    """In the process of a command: a clock is put forward or back at one of its readings."""
    read, calls = getattr(time, clock), [0]

    def jumped() -> float:
        calls[0] += 1
        return read() + (seconds if calls[0] >= call else 0.0)

    setattr(time, clock, jumped)
    if clock == "perf_counter":  # which the clock of a training has looked up already
        from avit_jax.runtime.training_clock import TrainingClock

        TrainingClock.__init__.__defaults__ = (jumped,)


def never_spoilt(scene: Scene, where: str) -> Path:
    """The workdir of a run by the program that is spoilt, in a step that never comes.

    A program with a further operation may round differently from one without.
    """

    def make(workdir: Path) -> None:
        ended = scene.run(workdir, prepare=functools.partial(spoil, where, NEVER))
        assert ended.status == 0, ended.err

    return scene.shared._prepared(f"never_spoilt_{where}", make)


def step_not_finite(scene: Scene, *, where: str, step: int, on_nonfinite: str) -> Outcome:
    """A training with one such step; where it has stopped, the same command without the fault."""
    workdir, reference = scene.folder / "run", never_spoilt(scene, where)
    prepare = functools.partial(spoil, where, step)
    first = scene.run(workdir, prepare=prepare, train__on_nonfinite=on_nonfinite)
    if on_nonfinite == "rollback":
        return judge(first, says=f"of step {step + 1} is not finite: back to step")
    kept = nothing_lost(workdir / "checkpoints", of="manifest.json")
    again = scene.run(workdir, prepare=functools.partial(spoil, where, NEVER))
    return both(
        judge(first, says=f"of step {step + 1} is not finite"),
        judge(again, identical=lambda: alike(workdir, reference)),
        Outcome(FAILED, kept() or "")
        if step == STEPS - 1 and not (workdir / "summary.json").exists()
        else Outcome(IDENTICAL),
    )


def mode_not_finite(scene: Scene, *, mode: str, value: float) -> Outcome:
    """A mode that reads weights which are not finite."""
    workdir = spoilt(scene, "interrupted" if mode == "train" else "finished", value)
    if mode == "predict":
        (workdir / "predictions.jsonl").unlink()
        (workdir / "predictions.jsonl.meta.json").unlink()
    flags = ("--output", str(scene.folder / "out.safetensors")) if mode == "convert" else ()
    flags = ("--input", str(workdir), *flags) if mode == "convert" else flags
    # Of the benchmark's profiles this one takes the run's own weights.
    profiles = {"benchmark__profiles": "('real',)"} if mode == "benchmark" else {}
    ended = scene.run(workdir, *flags, mode=mode, **profiles)
    return judge(ended, says="NaN or infinite|not finite", kept=nothing_lost(workdir))


def init_not_finite(scene: Scene, *, setting: str, **more: Any) -> Outcome:
    """A training that begins with, or learns from, a run whose weights are not finite."""
    source = spoilt(scene, "finished", float("nan")).rename(scene.folder / "source")
    ended = scene.run(scene.folder / "run", **{setting: str(source)}, **more)
    return judge(ended, says="NaN or infinite")


def clock_jumps(scene: Scene, *, mode: str, clock: str, seconds: float, call: int) -> Outcome:
    """A clock that is put forward or back within a command: nothing it says is below 0."""
    prepare = functools.partial(jump, clock, seconds, call)
    if mode == "train":
        workdir = scene.folder / "run"
        ended = scene.run(workdir, prepare=prepare)
        outcome = judge(ended, identical=lambda: scene.is_identical(workdir))
        below = [str(line) for line in _timings(workdir) if _is_below(line)]
        return Outcome(FAILED, below[0]) if below else outcome
    workdir = scene.copy("finished")
    (workdir / "eval.json").unlink()
    ended = scene.run(workdir, mode=mode, prepare=prepare)
    return judge(ended, identical=lambda: scene.evaluates_alike(workdir))


def _timings(workdir: Path) -> list[dict[str, Any]]:
    lines = (workdir / "timings.jsonl").read_text().splitlines()
    return [
        *map(json.loads, lines),
        json.loads((workdir / "summary.json").read_text())["wall_time"],
    ]


def _is_below(line: dict[str, Any]) -> bool:
    return any(isinstance(value, float | int) and value < 0 for value in line.values())


def _faults() -> list[Fault]:
    found = []

    def add(kind: str, name: str, run: Callable[..., Outcome], **keywords: Any) -> None:
        found.append(Fault(kind, name, functools.partial(run, **keywords)))

    for where in WHERE:
        for step in (0, 9, STEPS - 1):
            for reaction in ("stop", "rollback"):
                name = f"{where} of step {step + 1}, {reaction}"
                keywords = {"where": where, "step": step, "on_nonfinite": reaction}
                add("not finite", name, step_not_finite, **keywords)
    for mode in MODES:
        for value in (float("nan"), float("inf")):
            name = f"weights {value}, {mode}"
            add("not finite", name, mode_not_finite, mode=mode, value=value)
    add("not finite", "weights of init__workdir", init_not_finite, setting="init__workdir")
    alone = {"setting": "teacher__workdir", "teacher__attention": 0.0}
    add("not finite", "weights of teacher__workdir", init_not_finite, **alone)
    for clock in ("time", "perf_counter", "monotonic"):
        for seconds in (-3e8, -3600.0, 3600.0, 3e8):
            for mode, call in (("train", 25), ("eval", 3)):
                name = f"{clock} by {seconds:g} s, {mode}"
                keywords = {"mode": mode, "clock": clock, "seconds": seconds, "call": call}
                add("clock", name, clock_jumps, **keywords)
    return found


FAULTS: tuple[Fault, ...] = tuple(_faults())
