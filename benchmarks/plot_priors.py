"""Draws docs/images/priors.png: every depth prior over the layers of a 12-layer model.

python benchmarks/plot_priors.py [--output docs/images/priors.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from avit_jax.methods.avit.priors import depth_prior

DEPTH = 12
TARGET = 5.0
MIXTURE = [
    dict(name="gaussian", target_depth=3.0, scale=1.0, weight=0.7),
    dict(name="laplace", target_depth=10.0, scale=1.0, weight=0.3),
]
# Title, settings, and the x at which `target_depth` is marked (none: no mark).
PANELS: list[tuple[str, dict[str, Any], float | None]] = [
    ("gaussian", dict(prior="gaussian"), TARGET),
    ("laplace", dict(prior="laplace"), TARGET),
    ("student_t, df 3", dict(prior="student_t"), TARGET),
    ("cauchy", dict(prior="cauchy"), TARGET),
    ("lognormal (median)", dict(prior="lognormal"), TARGET),
    ("skew_normal, skew 4 (mode)", dict(prior="skew_normal"), TARGET),
    ("geometric (mean)", dict(prior="geometric"), TARGET),
    ("uniform", dict(prior="uniform"), None),
    ("mixture, 70 % and 30 %", dict(prior=MIXTURE), None),
    ("geometric, target 9", dict(prior="geometric", target_depth=9.0), 9.0),
    ("gaussian, nvlabs, target 8", dict(target_depth=8.0, scale=1.0, compat="nvlabs"), 8.0),
    ("laplace, borgi", dict(prior="laplace", compat="borgi"), TARGET),
]


def draw(axes: Axes, title: str, settings: dict[str, Any], target: float | None) -> None:
    """One panel: bars over the layers, a dashed line at the target."""
    target_values = depth_prior(DEPTH, **{"target_depth": TARGET, "scale": 1.5} | settings)
    axes.bar(np.arange(1, DEPTH + 1), target_values, color="#4477aa", width=0.8)
    if target is not None:
        axes.axvline(target, color="#ee6677", linestyle="--", linewidth=1.2)
    axes.set_title(f"{title}  (sum {target_values.sum():.2f})", fontsize=9)
    axes.set_xticks(range(1, DEPTH + 1))
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/images/priors.png"))
    output = parser.parse_args().output
    figure, grid = plt.subplots(3, 4, figsize=(12.5, 7.2), layout="constrained")
    for axes, panel in zip(grid.flat, PANELS, strict=True):
        draw(axes, *panel)
    figure.supxlabel("layer (dashed: target_depth)", fontsize=10)
    figure.supylabel("target probability of halting", fontsize=10)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=90)
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
