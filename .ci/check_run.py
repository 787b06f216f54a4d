"""Fails when a finished run stayed below its bar or left out one of the files that it promises."""

import argparse
import json
import sys
from pathlib import Path

FILES = ("config.json", "metrics.jsonl", "timings.jsonl", "checkpoints", "depth_maps.png")


def main(workdir: Path, top1_bar: float) -> None:
    """Reads summary.json in `workdir`; `top1` and the bar are shares of images, 0 to 1."""
    if not (workdir / "summary.json").exists():
        sys.exit(f"the run in {workdir} did not write summary.json")
    summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
    print(json.dumps(summary, indent=2))
    missing = [name for name in FILES if not (workdir / name).exists()]
    if missing:
        sys.exit(f"the run in {workdir} did not write {', '.join(missing)}")
    top1 = summary["top1"]
    if not top1_bar <= top1 <= 1.0:
        sys.exit(f"top1 in summary.json is {top1}, but it must lie between {top1_bar} and 1")
    print(f"top1 {top1:.4f} reached the bar of {top1_bar}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--top1", type=float, required=True, help="the bar, from 0 to 1")
    arguments = parser.parse_args()
    main(arguments.workdir, arguments.top1)
