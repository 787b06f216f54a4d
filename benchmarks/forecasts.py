"""Forecasts beside each other: a row for the training step of each `forecast.json`.

    python benchmarks/forecasts.py runs/*/forecast.json

`docs/performance/forecast.md` has the commands that wrote those of its table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HEAD = (
    "model", "machine", "data x fsdp", "batch", "state MB", "temporaries MB", "of memory",
    "MB sent", "estimate ms", "FLOPs ms", "bytes ms", "largest batch",
)  # fmt: skip


def cells(found: dict[str, Any]) -> list[str]:
    """Of one forecast, in the order of `HEAD`; empty where it says nothing."""
    step, machine, largest = found["programs"]["train"], found["machine"], found["largest_batch"]
    held = step["held"]
    state = sum(size for name, size in held.items() if name != "batch")
    start = [
        found["model"].removesuffix("_patch16_224"),
        machine["name"],
        f"{found['mesh']['data']} x {found['mesh']['fsdp']}",
        f"{step['batch_size']:,}",
        f"{state / 1e6:,.0f}",
    ]
    most = "" if largest is None else f"{largest['batch_size']:,}"
    if step["memory"] is None:
        return [*start, "no room", *[""] * 5, most]
    estimate, roofline = step["compiler_estimate_ms"], step["roofline_ms"]
    sent = sum(one["bytes"] for one in step["collectives"].values())
    return [
        *start,
        f"{step['memory']['temporaries'] / 1e6:,.0f}",
        f"{step['memory']['total'] / machine['memory']:.0%}",
        f"{sent / 1e6:,.0f}",
        "" if estimate is None else f"{estimate:,.0f}",
        f"{roofline['arithmetic']:,.0f}",
        f"{roofline['memory']:,.0f}",
        most,
    ]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    rows = [cells(json.loads(file.read_text())) for file in parser.parse_args().files]
    for row in (HEAD, ["---"] * len(HEAD), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
