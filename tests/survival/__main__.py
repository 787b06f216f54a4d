"""`python -m tests.survival [--kinds K ...] [--every N] [--report FILE.json] [--scenery FOLDER]`.

Prepares a tiny run, injects faults into copies of it and prints what became of each kind. Ends with
status 1 if one failed. With `--report` a suite that was stopped goes on, and failed ones are tried
again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests import compiling


def main() -> int:
    """Run the suite; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.survival", description=__doc__)
    parser.add_argument("--kinds", nargs="*", help="only these groups of faults")
    parser.add_argument("--only", default="", help="only faults with this text in their name")
    parser.add_argument("--every", type=int, default=1, help="only every Nth")
    parser.add_argument("--report", type=Path, help="a JSON file to write, and to go on from")
    parser.add_argument("--list", action="store_true", help="print what there is and inject none")
    default = Path(tempfile.gettempdir(), f"avit_jax_survival_{os.getuid()}")
    parser.add_argument("--scenery", type=Path, default=default, help="where prepared runs lie")
    options = parser.parse_args()
    compiling.prepare(os.environ)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(options.scenery / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    from tests.survival import suite
    from tests.survival.scene import Scenery

    found = suite.all_faults()
    kinds = sorted({fault.kind for fault in found})
    if unknown := set(options.kinds or ()) - set(kinds):
        parser.error(f"no kind {', '.join(sorted(unknown))}: there are {', '.join(kinds)}")
    chosen = [
        fault
        for fault in found
        if fault.kind in (options.kinds or kinds) and options.only in fault.name
    ][:: options.every]
    if options.list:
        print("\n".join(f"{fault.kind}: {fault.name}" for fault in chosen))
        return 0
    results = suite.run(chosen, Scenery(options.scenery), report=options.report)
    print(suite.as_table(results.values()))
    failed = [key for key, one in results.items() if one["verdict"] == suite.FAILED]
    print("\n".join(["failed:", *failed]) if failed else "none failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
