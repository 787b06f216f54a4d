"""What takes part in a race of inference: this package's programs, and the networks of others."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from avit_jax.benchmark import onnx_peers, peers
from avit_jax.benchmark.cases import Case
from avit_jax.benchmark.room import Room
from avit_jax.config.inference import Benchmark
from avit_jax.execution.dense import DENSE
from avit_jax.execution.executions import find
from avit_jax.execution.plan import Plan
from avit_jax.execution.predictor import Predictor
from avit_jax.models.vit import ViTShape
from avit_jax.runtime.device_mesh import make_mesh, platform_of

DENSE_GROUPS = (2, 4, 8)  # images that dense candidates treat together on a CPU

Contenders = dict[str, Callable[[], Any]]


def programs_that_fit(
    case: Case, plan: Plan, chosen: Benchmark, room: Room
) -> tuple[dict[str, Predictor], Contenders]:
    """The programs that a case is raced with, by name, and the functions to time."""
    programs, contenders = {}, {}
    for name, make in _programs(case, plan, chosen.executions or ()):
        program = room.attempt(name, make)
        if program is None:
            continue
        run = ready(program, case.batch, chosen.calls)
        if room.attempt(name, run) is not None:
            programs[name], contenders[name] = program, run
    return programs, contenders


def peer_names(kinds: Sequence[str] | None) -> dict[str, str]:
    """Peers by the names that they have in tables."""
    return {kind if kind in onnx_peers.PEERS else f"torch {kind}": kind for kind in kinds or ()}


def require_peer(kind: str, platform: str) -> None:
    """Raises UserError where a peer cannot run beside JAX on a platform, as this machine is."""
    if kind in onnx_peers.PEERS:
        onnx_peers.require(kind, platform)
    else:
        peers.device_for(kind, platform)


def peer_on_cpu(kind: str, shape: ViTShape, images: np.ndarray, calls: int) -> Callable[[], object]:
    """A peer's network on images, warmed up; raises UserError where it cannot run."""
    if kind in onnx_peers.PEERS:
        run = onnx_peers.peer(kind, shape, images, calls=calls)
    else:
        run = peers.peer(kind, shape, images, platform="cpu", calls=calls)
    run()
    return run


def peers_on_accelerator(case: Case, chosen: Benchmark, room: Room, platform: str) -> Contenders:
    """PyTorch's networks on the images of a case, by name, in this process."""
    contenders = {}

    def made(kind: str) -> Callable[[], Any]:
        run = peers.peer(
            kind, case.model.shape, case.batch, platform=platform, calls=chosen.calls or 1
        )
        run()
        return run

    for name, kind in peer_names(chosen.peers).items():
        run = room.attempt(name, lambda kind=kind: made(kind))
        if run is not None:
            contenders[name] = run
    return contenders


def ready(program: Predictor, images: np.ndarray, calls: int) -> Callable[[], list[jax.Array]]:
    """A function that answers the same images so many times, all begun before any is waited for."""
    arguments = program.put(images)

    def run() -> list[jax.Array]:
        begun = [program.start(*arguments) for _ in range(calls)]
        return [program.finish(output, *arguments).logits for output in begun]

    return run


def dense_groups(plan: Plan, local: int, platform: str) -> tuple[int, ...]:
    """Images that dense candidates treat together, of `local` on one device of a platform."""
    if platform != "cpu":
        return (local,)
    # A single image at a time pays only where there is no more than one.
    groups = {*DENSE_GROUPS, plan.dense_images, 2 * plan.dense_images}
    return tuple(sorted(group for group in groups if group <= local)) or (1,)


def _programs(
    case: Case, plan: Plan, executions: tuple[str, ...]
) -> Iterator[tuple[str, Callable[[], Predictor]]]:
    batch_size, mesh = len(case.timed), make_mesh()
    groups = dense_groups(plan, max(1, batch_size // mesh.size), platform_of(mesh))

    def compiled(execution: Any, plan: Plan) -> Callable[[], Predictor]:
        return lambda: case.model.compile(
            case.params, batch_size=batch_size, execution=execution, plan=plan
        )

    fused = (False, True) if plan.fused_attention else (False,)
    for group, kernel in itertools.product(groups, fused):
        changed = dataclasses.replace(plan, dense_images=group, fused_attention=kernel)
        yield f"dense of {group}{', fused attention' * kernel}", compiled(DENSE, changed)
    for execution in map(find, executions):
        if not execution.offered(case.model):
            print(f"{execution.name} left out: this method has none", flush=True)
        elif execution is not DENSE:
            yield execution.name, compiled(execution, plan)
