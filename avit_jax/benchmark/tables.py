"""A case of the benchmark as a person reads it: tables for speed, answers and training steps."""

from __future__ import annotations

from typing import Any

from avit_jax.runtime.tables import columns, paragraph


def print_case(result: dict[str, Any]) -> None:
    """Print one case of `benchmark.json`."""
    size, dtype = result["image_size"], result["dtype"]
    print()
    print(
        paragraph(
            f"profile {result['profile']}, batch {result['batch_size']}, {size} px, {dtype}: "
            f"{result['gmacs']:.4g} of {result['gmacs_dense']:.4g} GMACs used; where the last "
            "block computes only what is read, as the baseline does, "
            f"{result['gmacs_needed']:.4g} of {result['gmacs_dense_needed']:.4g}, an ideal "
            f"speed-up of {result['ideal_speedup']:.2f}; baseline {result['baseline']}"
        )
    )
    executions = result["executions"]
    print(speed_table(executions))
    if result["device_peak_mb"] is not None:
        print(f"highest use of device memory so far: {result['device_peak_mb']:.0f} MB")
    images = f"{result['images_compared']} images"
    print(
        f"\nanswers on {images}, beside masked execution's:\n{answer_table(executions)}", flush=True
    )
    training = result.get("training", {}).get("executions")
    if training:
        ideal = result["training"]["ideal_speedup"]
        print(f"\ntraining steps, ideal speed-up {ideal:.2f} over the dense model's:")
        print(speed_table(training), flush=True)


def speed_table(executions: dict[str, dict[str, Any]]) -> str:
    """Time, cost, memory and compilation of each execution."""
    rows = []
    for name, figures in executions.items():
        low, high = figures["speedup_quartiles"]
        rows.append(
            (
                name,
                f"{figures['milliseconds']:.1f}",
                f"{figures['images_per_second']:.1f}",
                f"{figures['speedup']:.2f} ({low:.2f}-{high:.2f})",
                f"{figures['share_of_ideal']:.2f}",
                _or_blank(figures, "gmacs_executed", ".3g"),
                _or_blank(figures, "share_of_peak", ".0%"),
                _or_blank(figures, "memory_mb", ".0f"),
                _or_blank(figures, "temporaries_mb", ".0f"),
                _or_blank(figures, "compile_seconds", ".1f")
                + (" (cached)" if figures.get("compile_cached") else ""),
            )
        )
    head = ["execution", "ms", "images/s", "speed-up (quartiles)", "of ideal", "GMACs run"]
    return columns([*head, "of peak", "MB (compiler)", "temporaries", "compile s"], rows)


def answer_table(executions: dict[str, dict[str, Any]]) -> str:
    """What each execution answers; executions of other weights (peers) have no row."""
    compared = {name: f for name, f in executions.items() if "same_class" in f}
    head = ["execution", "same class", "lost tokens", "batches without room", "logit difference"]
    rows = [
        [
            name,
            f"{figures['same_class']:.1%}",
            _or_blank(figures, "images_affected", ".1%"),
            _or_blank(figures, "batches_without_room", ".1%"),
            _or_blank(figures, "logit_difference", ".1e"),
        ]
        for name, figures in compared.items()
    ]
    if all("top1" in figures for figures in compared.values()):
        head += ["top-1", "change (points)"]
        for row, figures in zip(rows, compared.values(), strict=True):
            row += [f"{figures['top1']:.1%}", f"{100 * figures['top1_change']:+.2f}"]
    return columns(head, rows)


def _or_blank(figures: dict[str, Any], name: str, form: str) -> str:
    return format(figures[name], form) if name in figures else ""
