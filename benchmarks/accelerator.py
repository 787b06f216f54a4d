"""What `accelerator.sh` runs: `--mode benchmark` in parts, each in a process of its own.

  small     A-ViT-S at inference: dense, masked and static execution, and PyTorch's networks
  tiny      A-ViT-T likewise
  training  whole training steps of A-ViT-S: dense, masked, on live rows, and PyTorch's

The figures of all parts become one table, `table.md`, and `measured.json`, with the hardware and
the commands that were run. A part that fails is named in both, and the others are measured.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avit_jax.runtime.files import write_json_atomic, write_text_atomic

CONFIGS = {
    "small": "configs/avit_small.py",
    "tiny": "configs/avit_tiny.py",
    "training": "configs/avit_small.py:live",
}
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEAD = (
    "part", "profile", "batch", "program", "ms", "images/s", "over dense (quartiles)",
    "share of ideal", "share of peak", "temporaries MB", "compile s",
)  # fmt: skip
# In a process of its own, because whoever asks JAX for its devices keeps them.
ASK = """
import json, jax
from avit_jax.benchmark import peers
platform = jax.default_backend()
print(json.dumps({"platform": platform, "peers": peers.usable(platform)}))
"""


def command_of(part: str, found: dict[str, Any], arguments: argparse.Namespace) -> list[str]:
    """The command line of one part.

    Args:
        part: a key of `CONFIGS`.
        found: `platform` that JAX runs on, and the `peers` that can run beside it.
        arguments: of this script.
    """
    on_cpu, training = found["platform"] == "cpu", part == "training"
    peers = found["peers"] if arguments.peers is None else _names(arguments.peers)
    settings: dict[str, Any] = {
        "benchmark.dtypes": (arguments.dtype or ("float32" if on_cpu else "bfloat16"),),
        "benchmark.profiles": ("half",) if arguments.smoke else ("paper", "half"),
        "benchmark.executions": ("dense",) if training else ("dense", "masked", "static"),
        "benchmark.training": training,
        "benchmark.turns": 1 if arguments.smoke else arguments.turns,
        "benchmark.peers": tuple(peers),
    }
    if arguments.batch_sizes:
        settings["benchmark.batch_sizes"] = tuple(map(int, _names(arguments.batch_sizes)))
    elif arguments.smoke:
        settings["benchmark.batch_sizes"] = (4,)
    if arguments.smoke:
        settings |= {"model.image_size": 64, "model.depth": 2}
    command = [sys.executable, "-m", "avit_jax.main", "--mode", "benchmark"]
    command += [
        "--config",
        CONFIGS[part],
        "--workdir",
        f"{arguments.output}/{part}",
    ]
    # Double quotes inside, so that a shell takes each in one pair of single ones.
    return command + [
        f"--config.{name}={value}".replace("'", '"') for name, value in settings.items()
    ]


def rows_of(part: str, case: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """A case of `benchmark.json` as rows under `HEAD`."""
    shown = case.get("training", {}) if part == "training" else case
    for name, figures in shown.get("executions", {}).items():
        low, high = figures["speedup_quartiles"]
        # What leaves nothing out has no ideal to come near to.
        adaptive = not name.startswith(("dense", "torch", "masked"))
        yield (
            part,
            case["profile"],
            str(case["batch_size"]),
            name,
            f"{figures['milliseconds']:.2f}",
            f"{figures['images_per_second']:,.0f}",
            f"{figures['speedup']:.2f} ({low:.2f}-{high:.2f})",
            f"{figures['share_of_ideal']:.2f}" if adaptive else "",
            f"{figures['share_of_peak']:.0%}" if "share_of_peak" in figures else "",
            f"{figures['temporaries_mb']:.0f}" if "temporaries_mb" in figures else "",
            f"{figures['compile_seconds']:.0f}" if "compile_seconds" in figures else "",
        )
    for name in shown.get("out_of_memory", ()):
        row = (part, case["profile"], str(case["batch_size"]), name, "out of memory")
        yield row + ("",) * (len(HEAD) - len(row))


def markdown(measured: dict[str, Any]) -> str:
    """The table, with what it was measured on in front and the commands behind it."""
    parts = measured["parts"]
    environment = next((part["environment"] for part in parts.values() if "cases" in part), {})
    rows = [
        row
        for name, part in parts.items()
        for case in part.get("cases", ())
        for row in rows_of(name, case)
    ]
    lines = [", ".join(f"{name} {value}" for name, value in environment.items()), ""]
    lines += [_line(HEAD), _line(["---"] * len(HEAD)), *map(_line, rows), ""]
    for name, part in parts.items():
        lines += [f"{case}: out of memory ({name})." for case in part.get("out_of_memory", ())]
        if "failed" in part:
            lines.append(f"Part {name} failed with status {part['failed']}.")
        dtypes = {case["dtype"] for case in part.get("cases", ())}
        lines += ["", f"{name}, {', '.join(dtypes) or 'nothing measured'}:", ""]
        lines.append(f"    {part['command']}")
    return "\n".join(lines) + "\n"


def replace_measured(text: str, table: str) -> str:
    """A page with the table in place of what stands between its two markers.

    Raises:
        ValueError: the page has not one of each.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the page wants one line {BEGIN} and one line {END}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n{END}{rest.split(END)[1]}"


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(CONFIGS))
    parser.add_argument("--batch_sizes", help="such as 128,256; what suits the machine if unset")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="float32 on CPUs if unset")
    parser.add_argument("--peers", help="PyTorch's, '' for none; all that can run here if unset")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--output", default="runs/accelerator", help="folder for all results")
    parser.add_argument("--into", type=Path, help="page whose measured part is replaced")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, figures mean nothing")
    arguments = parser.parse_args()
    parts = _names(arguments.parts)
    if not set(parts) <= set(CONFIGS):
        parser.error(f"--parts takes {', '.join(CONFIGS)}, not {arguments.parts}")
    if arguments.into:
        replace_measured(arguments.into.read_text(encoding="utf-8"), "")
    asked = subprocess.run(
        [sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(asked.stdout.splitlines()[-1])
    measured: dict[str, Any] = {**found, "parts": {}}
    for part in parts:
        command = command_of(part, found, arguments)
        result: dict[str, Any] = {"command": shlex.join(["python", *command[1:]])}
        print(f"\n== {part}\n{result['command']}", flush=True)
        file = Path(arguments.output) / part / "benchmark.json"
        file.unlink(missing_ok=True)
        status = subprocess.run(command, check=False).returncode
        if status:
            result["failed"] = status
        if file.exists():  # written after each case, so a part that failed may have some
            result |= json.loads(file.read_text(encoding="utf-8"))
        measured["parts"][part] = result
        # After every part, so that a benchmark that is stopped keeps what it has.
        table = markdown(measured)
        write_json_atomic(Path(arguments.output) / "measured.json", measured)
        write_text_atomic(Path(arguments.output) / "table.md", table)
    print(f"\n{table}\nwritten: {arguments.output}/table.md, {arguments.output}/measured.json")
    if arguments.into:
        page = replace_measured(arguments.into.read_text(encoding="utf-8"), table)
        write_text_atomic(arguments.into, page)
    raise SystemExit(any("failed" in part for part in measured["parts"].values()))


if __name__ == "__main__":
    main()
