"""Depth maps: images beside the number of layers that each of their patches went through.

Beside the picture come figures that say what the maps go with: brightness (the ink of a digit),
edges, and mere position. A map that position alone explains says nothing about the image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from avit_jax.data.mix import normalise
from avit_jax.experiment import Experiment
from avit_jax.methods.base import Model
from avit_jax.methods.per_image import finest_stage, num_layers, per_image
from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import batch_sharding
from avit_jax.viz.matplotlib_figure import new_figure, write_png
from avit_jax.viz.palette import LEGEND
from avit_jax.viz.patches import LUMINANCE, on_grid

SHOWN = 20  # images in the picture
MEASURED = 1024  # images behind the figures
_ALIKE = 1e-6  # spread below which quantities in 0..1 or in layers are rounding only


def write(experiment: Experiment, params: Params, path: Path) -> dict[str, Any]:
    """Write the picture for the evaluation split; return what the depths go with.

    Args:
        experiment: whose evaluation images are used.
        params: of the model.
        path: of the PNG.
    """
    images, labels, answers, depths = collect(experiment, params)
    maps = on_grid(depths, finest_stage(experiment.model).grid)
    names = experiment.eval_source.class_names
    titles = [
        names[label] + ("" if label == answer else f"\ntaken for {names[answer]}")
        for label, answer in zip(labels, answers, strict=True)
    ]
    chosen = spread(labels, SHOWN)
    draw(
        images[chosen],
        maps[chosen],
        [titles[i] for i in chosen],
        depth=num_layers(experiment.model),
        path=path,
    )
    return statistics(images, maps)


def collect(experiment: Experiment, params: Params) -> tuple[np.ndarray, ...]:
    """Images uint8 `[M, S, S, 3]`, labels `[M]`, answers `[M]` and token depths `[M, N]`."""
    look = jax.jit(_look, static_argnums=0)
    parts: list[tuple[np.ndarray, ...]] = []
    seen = 0
    for batch in experiment.eval_batches():
        pixels = jax.device_put(batch["image"], batch_sharding(experiment.mesh))
        answers, depths = jax.device_get(look(experiment.model, params, pixels))
        valid = batch["valid"]
        parts.append(
            tuple(rows[valid] for rows in (batch["image"], batch["label"], answers, depths))
        )
        seen += int(valid.sum())
        if seen >= MEASURED:
            break
    return tuple(np.concatenate(columns)[:MEASURED] for columns in zip(*parts, strict=True))


def _look(model: Model, params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    output = model.apply(params, normalise(images))
    said = per_image(model, output)
    return said.class_index, said.token_depth


def spread(labels: np.ndarray, count: int) -> list[int]:
    """Indices of `count` images that take turns over the classes, in the order of the split."""
    rank = np.zeros(len(labels), int)
    for label in np.unique(labels):
        rank[labels == label] = np.arange((labels == label).sum())
    return np.lexsort((labels, rank))[:count].tolist()


def statistics(images: np.ndarray, maps: np.ndarray) -> dict[str, Any]:
    """What depth goes with, over all patches.

    Args:
        images: uint8 `[M, S, S, 3]`.
        maps: depth of each patch `[M, grid, grid]`, in layers.

    Returns:
        `brightness` and `edges`: Pearson correlation of a patch's depth with its mean luminance and
        with the mean magnitude of its luminance gradient (`None` where either is constant), and
        mean depth of the upper and lower half of the patches by that quantity. `position` and
        `image`: share of the depths' variance that the mean map explains, and that the images' mean
        depths explain. Each with a `text` for people.
    """
    grid = maps.shape[1]
    luminance = images.astype(np.float64) @ LUMINANCE / 255.0
    rows, columns = np.gradient(luminance, axis=(1, 2))
    quantities = {
        "brightness": _per_patch(luminance, grid),
        "edges": _per_patch(np.hypot(rows, columns), grid),
    }
    result = {name: _relation(values, maps) for name, values in quantities.items()}
    means = {"position": maps.mean(0), "image": maps.mean((1, 2))}
    return result | {name: _explained(mean, maps) for name, mean in means.items()}


def _explained(means: np.ndarray, maps: np.ndarray) -> dict[str, Any]:
    """Share of the variance of all depths that lies between the means of groups."""
    if np.ptp(maps) < _ALIKE:
        return {"variance_explained": None, "text": "all depths are equal"}
    share = float(means.var() / maps.var())
    return {"variance_explained": share, "text": f"alone explains {share:.0%} of the variance"}


def _per_patch(values: np.ndarray, grid: int) -> np.ndarray:
    """Mean over each patch: `[M, S, S]` to `[M, grid, grid]`."""
    images, size = len(values), values.shape[1] // grid
    return values.reshape(images, grid, size, grid, size).mean((2, 4))


def _relation(values: np.ndarray, maps: np.ndarray) -> dict[str, Any]:
    for quantity, alike in ((maps, "all depths are equal"), (values, "all patches are alike")):
        if np.ptp(quantity) < _ALIKE:
            return {"correlation": None, "text": alike}
    correlation = float(np.corrcoef(values.ravel(), maps.ravel())[0, 1])
    upper = values > np.median(values)
    if not upper.any():  # more than half of the patches share the largest value, as on white paper
        upper = values >= np.median(values)
    high, low = float(maps[upper].mean()), float(maps[~upper].mean())
    return {
        "correlation": correlation,
        "mean_depth_upper_half": high,
        "mean_depth_lower_half": low,
        "text": f"correlation {correlation:+.2f}; "
        f"upper half {high:.2f}, lower half {low:.2f} layers deep",
    }


def draw(
    images: np.ndarray, maps: np.ndarray, titles: list[str], *, depth: int, path: Path
) -> None:
    """Draw images uint8 `[M, S, S, 3]` beside their depth maps `[M, grid, grid]`."""
    from matplotlib.colors import BoundaryNorm

    columns = 5
    rows = -(-len(images) // columns)
    height, second_line = 1.38 * rows + 0.9, 0.14  # inches
    figure = new_figure(2.3 * columns, height, layout="constrained")
    # The layout has an eye on the axes, not on a title's second line.
    figure.get_layout_engine().set(rect=(0.0, 0.0, 1.0, 1.0 - second_line / height))
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    counts = np.arange(min(1, maps.min()), depth + 1)  # 0: no layer computed the patch
    norm = BoundaryNorm(np.arange(counts[0] - 0.5, depth + 1), 256)
    for index, (image, depths, title) in enumerate(zip(images, maps, titles, strict=True)):
        row, column = divmod(index, columns)
        axes[row, 2 * column].imshow(image)
        axes[row, 2 * column].set_title(title, fontsize=8)
        # Cividis reads the same to colour-blind eyes and in grey.
        picture = axes[row, 2 * column + 1].imshow(depths, cmap="cividis", norm=norm)
        axes[row, 2 * column + 1].set_title(f"mean {depths.mean():.1f}", fontsize=8)
    bar = figure.colorbar(
        picture,
        ax=axes,
        location="bottom",
        ticks=counts,
        aspect=50,
        fraction=0.04,
        spacing="uniform",
    )
    bar.set_label(LEGEND, fontsize=9)
    write_png(figure, path, dots_per_inch=120)
