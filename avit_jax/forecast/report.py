"""A forecast as a table for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from avit_jax.forecast.collectives import KINDS
from avit_jax.runtime.tables import columns, paragraph

Figures = dict[str, Any]


def print_forecast(found: Figures) -> None:
    """The table of `forecast.json`, and what its words mean."""
    machine, programs = found["machine"], found["programs"]
    mesh = found["mesh"]
    print(
        f"Forecast: {found['model']} on {machine['name']}, {mesh['data']} x {mesh['fsdp']} "
        f"(data x fsdp), a device has {machine['memory'] / 2**30:.0f} GiB\n"
    )
    rows = [row for row in _rows(found, list(programs.values())) if any(row[1:])]
    print(columns(["on each device", *programs], rows))
    if found["largest_batch"] is not None:
        print("\n" + paragraph(largest_sentence(found)))
    print("\n" + paragraph(NOTES))


NOTES = (
    "Nothing was measured. Estimate: the cycles that a TPU's compiler foresees, without gathers, "
    "kernels of this package and repetitions that depend on data. Roofline: FLOPs over the "
    "published peak, below which no time can be, and bytes that all kernels read and write over "
    "the published bandwidth."
)


def largest_sentence(found: Figures) -> str:
    """The largest batch in one sentence."""
    largest = found["largest_batch"]
    memory = found["machine"]["memory"]
    if not largest["batch_size"]:
        return "No batch of a training step was found that fits into the memory."
    return (
        f"The largest batch found that fits: {largest['batch_size']:,} images a step over all "
        f"devices, {largest['memory'] / 2**30:.1f} GiB on each of {memory / 2**30:.0f} "
        f"({len(largest['tried'])} batch sizes compiled)."
    )


def _rows(found: Figures, programs: list[Figures]) -> list[list[str]]:
    def row(name: str, value: Callable[[Figures], str]) -> list[str]:
        return [name, *(value(one) if one.get("memory") else "" for one in programs)]

    def mega(size: float | None) -> str:
        return "" if size is None else f"{size / 1e6:,.1f}"

    def milliseconds(value: float | None) -> str:
        return "" if value is None else f"{value:,.2f}"

    def sent(kind: str) -> Callable[[Figures], str]:
        def text(one: Figures) -> str:
            traffic = one["collectives"].get(kind)
            return f"{traffic['count']:,} / {mega(traffic['bytes'])}" if traffic else ""

        return text

    held = {name: None for one in programs for name in one["held"]}
    share = found["machine"]["memory"]
    return [
        ["images, all devices", *(f"{one['batch_size']:,}" for one in programs)],
        ["execution", *(one["execution"] for one in programs)],
        *(row(f"{name}, MB", lambda one, n=name: mega(one["held"].get(n))) for name in held),
        row("temporaries, MB", lambda one: mega(one["memory"]["temporaries"])),
        row("all memory, MB", lambda one: mega(one["memory"]["total"])),
        row("  of the device's", lambda one: f"{one['memory']['total'] / share:.0%}"),
        [
            "fits",
            *("yes" if one["fits"] else "no" for one in programs),
        ],
        *(row(f"{kind}, count / MB sent", sent(kind)) for kind in KINDS),
        row("loops that depend on data", lambda one: str(one["waits"])),
        row("kernels", lambda one: f"{one['kernels']:,}"),
        row("TFLOPs", lambda one: f"{one['flops'] / 1e12:.3f}"),
        row("GB that kernels move", lambda one: f"{one['kernel_bytes'] / 1e9:.2f}"),
        row("compiler's estimate, ms", lambda one: milliseconds(one["compiler_estimate_ms"])),
        row("roofline: FLOPs, ms", lambda one: milliseconds(one["roofline_ms"]["arithmetic"])),
        row("roofline: bytes, ms", lambda one: milliseconds(one["roofline_ms"]["memory"])),
        row("seconds to compile", lambda one: f"{one['compile_seconds']:.0f}"),
    ]
