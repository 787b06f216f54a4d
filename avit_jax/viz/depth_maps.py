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
from avit_jax.viz import palette
from avit_jax.viz.matplotlib_figure import hide_frame, new_figure, shortened, write_png
from avit_jax.viz.patches import LUMINANCE, on_grid

SHOWN = 20  # images in the picture
MEASURED = 1024  # images behind the figures
COLUMNS = 5  # images beside each other
LONGEST = 36  # letters of a title, which are as wide as image and map
DOTS_PER_INCH = 120
_PANEL, _GAP, _BETWEEN, _TITLE, _LEGEND = 1.06, 0.06, 0.14, 0.34, 0.75  # inches
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
        title(names[label], None if label == answer else names[answer])
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
        depths explain. `neighbours`: see `smoothness`. Each with a `text` for people.
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
    explained = {name: _explained(mean, maps) for name, mean in means.items()}
    return result | explained | {"neighbours": smoothness(maps)}


def smoothness(maps: np.ndarray) -> dict[str, Any]:
    """How much the depths of patches beside each other differ.

    Depths that differ little anywhere do so beside each other, too, so the same of any two patches
    of one image stands beside it: `of_any_two` is 1 where maps are noise, and 0 where they are
    smooth.

    Args:
        maps: depth of each patch `[M, grid, grid]`, in layers.
    """
    is_one_patch = maps[0].size == 1
    if is_one_patch or np.ptp(maps) < _ALIKE:
        text = "an image is one patch" if is_one_patch else "all depths are equal"
        return {"difference": None, "of_any_two": None, "text": text}
    steps = [np.abs(np.diff(maps.astype(np.float64), axis=axis)).ravel() for axis in (1, 2)]
    beside = float(np.concatenate(steps).mean())
    values = np.sort(maps.reshape(len(maps), -1).astype(np.float64), axis=1)
    count = values.shape[1]
    ranks = 2 * np.arange(count) - count + 1  # how often a value is the larger one of two
    anywhere = float((values @ ranks).mean() * 2 / (count * (count - 1)))
    ratio = beside / anywhere if anywhere > _ALIKE else None  # None: only images differ
    return {
        "difference": beside,
        "of_any_two": ratio,
        "text": f"differ by {beside:.2f} layers, any two patches of an image by {anywhere:.2f}",
    }


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


def title(name: str, mistaken: str | None) -> str:
    """Name of an image's class, and of the class it is taken for instead, in `LONGEST` letters."""
    between = ", taken for "
    if mistaken is None:
        return shortened(name, longest=LONGEST)
    half = (LONGEST - len(between)) // 2
    if len(name) + len(mistaken) > 2 * half:
        name, mistaken = (shortened(one, longest=half) for one in (name, mistaken))
    return name + between + mistaken


def draw(
    images: np.ndarray, maps: np.ndarray, titles: list[str], *, depth: int, path: Path
) -> None:
    """Write `figure_of` such images as a PNG."""
    drawn = figure_of(images, maps, titles, depth=depth)
    write_png(drawn, path, dots_per_inch=DOTS_PER_INCH)


def figure_of(images: np.ndarray, maps: np.ndarray, titles: list[str], *, depth: int):
    """Images uint8 `[M, S, S, 3]` beside their depth maps `[M, grid, grid]`, as a figure.

    A title has the width of image and map, and the mean depth stands in the line below it.
    """
    columns = min(COLUMNS, max(2, len(images)))  # the legend needs the breadth of two
    rows = -(-len(images) // columns)
    pair, row_height = 2 * _PANEL + _GAP + _BETWEEN, _TITLE + _PANEL + _GAP
    width, height = columns * pair + _BETWEEN, rows * row_height + _LEGEND
    figure = new_figure(width, height, dpi=DOTS_PER_INCH)

    def axes(left: float, bottom: float, breadth: float, size: float):
        return figure.add_axes((left / width, bottom / height, breadth / width, size / height))

    for index, (image, depths, title) in enumerate(zip(images, maps, titles, strict=True)):
        row, column = divmod(index, columns)
        left = _BETWEEN + column * pair
        bottom = height - (row + 1) * row_height + _GAP
        photograph = axes(left, bottom, _PANEL, _PANEL)
        photograph.imshow(image)
        lines = f"{shortened(title, longest=LONGEST)}\nmean depth {depths.mean():.1f}"
        photograph.set_title(lines, fontsize=8, loc="left", pad=3, parse_math=False)
        layers = axes(left + _PANEL + _GAP, bottom, _PANEL, _PANEL)
        layers.imshow(palette.paint(depths, depth), interpolation="nearest")
        for axis in (photograph, layers):
            axis.set_axis_off()
    counts = np.arange(min(1, maps.min()), depth + 1)  # 0: no layer computed the patch
    legend = axes(0.1 * width, 0.5 * _LEGEND, 0.8 * width, 0.2)
    legend.imshow(palette.paint(counts, depth)[None], aspect="auto", interpolation="nearest")
    legend.set_xticks(np.arange(len(counts)), [str(count) for count in counts], fontsize=9)
    legend.set_yticks([])
    legend.set_xlabel(palette.LEGEND, fontsize=9)
    legend.tick_params(length=0)
    hide_frame(legend)
    return figure
