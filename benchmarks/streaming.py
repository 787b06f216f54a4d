"""What keeping batches full brings: a stream against batch after batch, and under random arrivals.

    python benchmarks/streaming.py --workdir runs/dvt_digits --thresholds 0.95,0.9

First images/s of every exact execution, one batch after the other, and of a stream that never
lacks images, in turns. Then images that come at random (Poisson) at shares of what the stream can:
each is due at its time, whether or not there was a place for it, and its latency counts from there.
In between there are images that cannot be used, and consumers that stop in the middle of theirs.
Every answer is compared with that of masked execution for the same image.
"""

from __future__ import annotations

import argparse
import queue
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import avit_jax
from avit_jax.data.digits import DigitsSource
from avit_jax.execution.executions import EXECUTIONS
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.streaming.stream import Stream

FAILING, STOPPING = 101, 1000  # every so many images one fails, or a consumer stops early
CLOSE = 1e-4  # of logits; another image's differ by more


def main() -> None:
    """Print one line for each way and each load."""
    options = _options()
    config = {"inference.batch_size": options.batch_size}
    if options.thresholds:
        config["method.thresholds"] = tuple(map(float, options.thresholds.split(",")))
    run = avit_jax.load_run(options.workdir, config=config)
    source = DigitsSource(split="validation")
    known = run.preprocess([source[index].image for index in range(len(source))])
    output = jax.jit(run.model.apply)(run.params, known)
    wanted, cost = np.asarray(output.logits), float(np.mean(run.model.gmacs(output)))
    chosen = np.random.default_rng(options.seed).integers(0, len(known), options.images)
    print(f"{run!r}; mean GMACs {cost:.4g} of {run.model.dense_gmacs():.4g}")

    device = jax.devices()[:1]
    size = {"batch_size": options.batch_size}
    ways: dict[str, Callable[[np.ndarray], Any]] = {}
    for execution in EXECUTIONS.values():
        if execution.exact and execution.offered(run.model):
            predict = run.model.compile(
                run.params, execution=execution, mesh=make_mesh(devices=device), **size
            )
            ways[execution.name] = lambda indices, predict=predict: [
                np.asarray(predict(known[part]).logits)
                for part in np.split(
                    indices, range(options.batch_size, len(indices), options.batch_size)
                )
            ]
    with run.model.stream(run.params, max_wait=None, devices=device, **size) as stream:
        ways["stream"] = lambda indices: list(stream.map(known[index] for index in indices))
        rates = race(ways, chosen[: options.images // 8], options.turns)
    best = max(rate for name, rate in rates.items() if name != "stream")
    for name, rate in rates.items():
        print(f"{name:8} {rate:8.1f} images/s, {rate / best:.2f} of the best batch by batch")
    for load in options.loads:
        with run.model.stream(
            run.params, max_wait=options.max_wait, devices=device, **size
        ) as stream:
            list(stream.map(known[: 4 * options.batch_size]))
            print(under(load, load * rates["stream"], stream, known, wanted, chosen))


def race(
    ways: dict[str, Callable[[np.ndarray], Any]], indices: np.ndarray, turns: int
) -> dict[str, float]:
    """Images/s of each way, the median of turns that they take one after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):  # the first one only warms up
        for name, way in ways.items():
            began = time.monotonic()
            way(indices[: len(indices) if turn else len(indices) // 8])
            if turn:
                seconds[name].append(time.monotonic() - began)
    return {name: len(indices) / statistics.median(taken) for name, taken in seconds.items()}


def under(
    load: float,
    rate: float,
    stream: Stream,
    known: np.ndarray,
    wanted: np.ndarray,
    chosen: np.ndarray,
) -> str:
    """One line about images that come at random.

    Args:
        load: share of what the stream can, for the line.
        rate: images/s that come.
        stream: that answers.
        known: all images `[K, S, S, 3]`.
        wanted: their logits `[K, C]`.
        chosen: which of them comes, one after the other.
    """
    due = time.monotonic() + np.cumsum(np.random.default_rng(0).exponential(1 / rate, len(chosen)))
    brought: queue.SimpleQueue = queue.SimpleQueue()

    def bring() -> None:
        for number, index in enumerate(chosen):
            time.sleep(max(0.0, due[number] - time.monotonic()))
            image = np.full_like(known[0], np.nan) if number % FAILING == 7 else known[index]
            brought.put((number, index, stream.submit(image, due=due[number])))
            if number % STOPPING == STOPPING // 2:
                stops = stream.map(iter(known[:40]))
                next(stops)
                stops.close()

    bringer = threading.Thread(target=bring)
    bringer.start()
    seconds, failed, lost, others, last = [], 0, 0, 0, 0.0
    for _ in chosen:
        number, index, future = brought.get()
        answer = future.result(60)
        last = max(last, due[number] + answer.seconds)
        if number % FAILING == 7:
            failed += answer.error is not None
            continue
        lost += answer.error is not None
        if answer.error is None:
            others += not np.allclose(answer.logits, wanted[index], atol=CLOSE)
            seconds.append(answer.seconds)
    bringer.join()
    middle, worst = np.percentile(seconds, [50, 99])
    return (
        f"load {load:.2f}: {rate:.1f} images/s come, {len(chosen) / (last - due[0]):.1f} answered; "
        f"latency median {1e3 * middle:.0f} ms, 99 % {1e3 * worst:.0f} ms; {len(seconds):,} "
        f"answers, {lost} lost, {others} of another image, {failed} failing images said so"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, help="of a run on the digits")
    parser.add_argument("--thresholds", default="", help="of a cascade, such as 0.95,0.9")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_wait", type=float, default=0.1, help="seconds")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.9, 1.1])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
