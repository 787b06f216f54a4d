"""All faults, one after the other, and the table of what became of them."""

from __future__ import annotations

import importlib
import json
import pkgutil
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from avit_jax.runtime.files import write_json_atomic
from avit_jax.runtime.tables import columns
from tests.survival import faults
from tests.survival.fault import FAILED, SKIPPED, VERDICTS, Fault, NotHere, Outcome
from tests.survival.scene import Scenery, scene


def all_faults() -> tuple[Fault, ...]:
    """Those of every module of `tests.survival.faults`, in the order of their names."""
    names = sorted(module.name for module in pkgutil.iter_modules(faults.__path__))
    modules = [importlib.import_module(f"{faults.__name__}.{name}") for name in names]
    found = tuple(fault for module in modules for fault in module.FAULTS)
    named = [(fault.kind, fault.name) for fault in found]
    assert len(set(named)) == len(named), "two faults of one kind have one name"
    return found


def inject(fault: Fault, shared: Scenery) -> Outcome:
    """Inject one fault into a scene of its own."""
    with scene(shared) as own:
        try:
            return fault.run(own)
        except NotHere as reason:
            return Outcome(SKIPPED, str(reason))
        except Exception:  # of the fault's own code: the others go on
            return Outcome(FAILED, traceback.format_exc()[-900:])


def run(chosen: Sequence[Fault], shared: Scenery, *, report: Path | None) -> dict[str, dict]:
    """Inject faults, print a line of each, and keep a report that a killed suite goes on from.

    Args:
        chosen: to inject.
        shared: the prepared runs.
        report: JSON file of what became of each; those that held there are not injected again.

    Returns:
        `{"kind: name": {"kind", "verdict", "seen", "seconds"}}`.
    """
    found = json.loads(report.read_text()) if report is not None and report.exists() else {}
    for number, fault in enumerate(chosen, start=1):
        key = f"{fault.kind}: {fault.name}"
        if found.get(key, {"verdict": FAILED})["verdict"] != FAILED:
            continue
        began = time.monotonic()
        outcome = inject(fault, shared)
        seconds = round(time.monotonic() - began, 2)
        found[key] = {
            "kind": fault.kind,
            "verdict": outcome.verdict,
            "seen": outcome.seen,
            "seconds": seconds,
        }
        shown = outcome.seen if outcome.verdict == FAILED else outcome.seen[:160]
        print(f"{number}/{len(chosen)} {key}: {outcome.verdict} ({seconds} s) {shown}", flush=True)
        if report is not None:
            write_json_atomic(report, found)
    return {key: found[key] for key in (f"{one.kind}: {one.name}" for one in chosen)}


def as_table(results: Iterable[dict]) -> str:
    """Counts by kind."""
    rows: dict[str, list[dict]] = {}
    for one in results:
        rows.setdefault(one["kind"], []).append(one)
        rows.setdefault("all", []).append(one)
    rows["all"] = rows.pop("all", [])
    counted = [
        [kind, str(len(of_kind))]
        + [str(sum(one["verdict"] == verdict for one in of_kind)) for verdict in VERDICTS]
        + [f"{sum(one['seconds'] for one in of_kind):.0f} s"]
        for kind, of_kind in rows.items()
    ]
    return columns(["faults", "injected", *VERDICTS, "time"], counted)
