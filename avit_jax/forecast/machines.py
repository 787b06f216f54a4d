"""Machines by name, with what their makers publish of them."""

from __future__ import annotations

import dataclasses
import re

import jax

from avit_jax.benchmark.peaks import published_peak
from avit_jax.errors import UserError
from avit_jax.forecast.absent_machines import FLAT, TPUS, devices_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine to compile for.

    Attributes:
        name: as it was asked for.
        devices: of JAX, which need not be there.
        memory: bytes of one device.
        bandwidth: bytes a second between a device and its memory, at most.
        clock: cycles a second of a TPU; `None` for others, whose compilers estimate none.
        source: of these figures.
    """

    name: str
    devices: tuple[jax.Device, ...]
    memory: float
    bandwidth: float
    clock: float | None
    source: str

    @property
    def platform(self) -> str:
        """What JAX calls it."""
        return self.devices[0].platform

    def peak(self, dtype: str) -> float | None:
        """FLOP/s of a device in products of such a dtype, where published."""
        return published_peak(self.devices[0].device_kind, dtype)


@dataclasses.dataclass(frozen=True)
class _Chip:
    memory: float
    bandwidth: float
    clock: float | None
    source: str


_GOOGLE = "Google Cloud's documentation of TPU {}"
# The clock is the published peak over the multiply-adds of a cycle: 8 units of 128 x 128 in v4 and
# v5p, 4 of these in v5e, 4 of 256 x 256 in v6e.
_CHIPS = {
    "v4": _Chip(32 * 2**30, 1.228e12, 1.05e9, _GOOGLE.format("v4")),
    "v5e": _Chip(16 * 2**30, 0.819e12, 1.50e9, _GOOGLE.format("v5e")),
    "v5p": _Chip(95 * 2**30, 2.765e12, 1.75e9, _GOOGLE.format("v5p")),
    "v6e": _Chip(32 * 2**30, 1.640e12, 1.75e9, _GOOGLE.format("v6e")),
    # What the driver of an SXM module leaves of its 80 GB.
    "h100": _Chip(84_942_979_072, 3.35e12, None, "NVIDIA's data sheet of H100 SXM"),
}


def machine_of(name: str) -> Machine:
    """The machine behind `config.forecast.machine`.

    Raises:
        UserError: no such machine, or its compiler is not installed.
    """
    kind, _, layout = name.partition(":")
    wanted = {"h100": r"([1-8])?"} | {
        tpu: r"\d+x\d+" if tpu in FLAT else r"\d+x\d+x\d+" for tpu in TPUS
    }
    if kind not in wanted or not re.fullmatch(wanted[kind], layout):
        raise UserError(
            f"config.forecast.machine is {name!r}: write a TPU with its torus, such as v5e:16x16, "
            "v6e:8x8, v4:4x4x4 or v5p:2x2x2, or h100 or h100:8 for one to eight GPUs of a host."
        )
    chip = _CHIPS[kind]
    devices = devices_of("gpu" if kind == "h100" else kind, layout or "1")
    return Machine(name=name, devices=devices, **dataclasses.asdict(chip))
