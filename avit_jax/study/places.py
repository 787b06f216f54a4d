"""Where cells run side by side: each on accelerators of its own, or with its share of the cores.

Which devices a process sees is fixed when it starts, so a place is a set of environment variables.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

from avit_jax.errors import UserError
from avit_jax.runtime import cpu_devices

Place = dict[str, str]
_PRINT = """
import jax, json
found = jax.local_devices()
on_tpu = found[0].platform == "tpu"  # whose chips may have two cores, which are devices
chips = {str(one.coords) if on_tpu else one.id for one in found}
print(json.dumps([found[0].platform, len(chips)]))
"""


class Machine(NamedTuple):
    """What JAX will compute on.

    Attributes:
        platform: "cpu", "gpu" or "tpu".
        devices: chips; cores of a CPU.
    """

    platform: str
    devices: int


def look(environment: Mapping[str, str] = os.environ) -> Machine:
    """This machine, asked in a process of its own: whoever starts JAX keeps a TPU to itself.

    Raises:
        UserError: JAX does not start there.
    """
    if cpu_devices.will_be_used(environment):
        return Machine("cpu", cpu_devices.cores_for_jax(environment))
    asked = subprocess.run(
        [sys.executable, "-c", _PRINT], env=dict(environment), capture_output=True, text=True
    )
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise UserError(
            f"JAX does not start on this machine ({last[:200]}): install it for the device, or set "
            "JAX_PLATFORMS=cpu."
        )
    platform, devices = json.loads(asked.stdout.strip().splitlines()[-1])
    return Machine("gpu" if platform in ("cuda", "rocm") else platform, devices)


def places(
    machine: Machine, jobs: int | None, environment: Mapping[str, str] = os.environ
) -> list[Place]:
    """Environment variables of each of the cells that run at the same time.

    Args:
        machine: from `look`.
        jobs: how many there are; unset, one for each accelerator, and one on a CPU.
        environment: of this process, which may see some accelerators only.

    Raises:
        UserError: more cells than there are devices, or a number of them that no TPU is parted in.
    """
    on_cpu, devices = machine.platform == "cpu", machine.devices
    jobs = jobs or (1 if on_cpu else devices)
    if jobs > devices:
        raise UserError(
            f"--jobs is {jobs}, but there are {devices} {'cores' if on_cpu else 'accelerators'}: "
            "write no more than these."
        )
    if jobs == 1:
        return [{}]
    if on_cpu:
        return [{cpu_devices.THREADS: str(devices // jobs)}] * jobs
    if machine.platform == "tpu":
        return _on_tpu(jobs, devices)
    seen = environment.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",") if seen else [str(number) for number in range(devices)]
    each = devices // jobs
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(names[start : start + each])}
        for start in range(0, jobs * each, each)
    ]


def _on_tpu(jobs: int, chips: int) -> list[Place]:
    if jobs != chips:
        raise UserError(
            f"--jobs is {jobs} on {chips} TPU chips: write 1, whose cells use them all, or {chips}."
        )
    alone = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
    return [{"TPU_VISIBLE_CHIPS": str(number), **alone} for number in range(chips)]
