"""What ran for one image, block by block, as a drawing in its card: patches, heads, halves."""

from __future__ import annotations

import numpy as np

from avit_jax.viz.depth_figure import part_names, used_parts
from avit_jax.viz.look import Looked
from avit_jax.viz.patches import on_grid

PER_ROW = 6  # blocks side by side, at most
_CELL, _GAP, _NUMBER = 44, 3.2, 9  # units: a small photograph, between two, the number above


def usage(looked: Looked, *, photograph: str, name: str, order: int, grid: int) -> str:
    """A small photograph per block, skipped patches covered; below it heads and halves.

    Args:
        looked: the image.
        photograph: its address, for example a data URI.
        name: of the image, escaped.
        order: its place among all images, for names inside the page.
        grid: patches along each side.
    """
    panels = "".join(_matrix(part, used) for part, used in used_parts(looked))
    parts = f'<div class="parts">{panels}</div>' if panels else ""
    return _strip(looked, photograph=photograph, name=name, order=order, grid=grid) + parts


def _strip(looked: Looked, *, photograph: str, name: str, order: int, grid: int) -> str:
    layers = len(looked.live)
    live = on_grid(looked.live, grid)
    together = max(looked.exit_layers or (layers,))  # so that an exit begins with a row
    columns = -(-together // -(-together // PER_ROW))
    columns = min(columns * (PER_ROW // columns), layers)  # several short exits share a row
    rows = -(-layers // columns)
    width = columns * (_CELL + _GAP) - _GAP
    height = rows * (_CELL + _NUMBER + _GAP) - _GAP
    blocks = "".join(
        f'<g transform="translate({index % columns * (_CELL + _GAP):.4g} '
        f'{index // columns * (_CELL + _NUMBER + _GAP):.4g})">'
        f'<text y="{_NUMBER - 2}">{index + 1}</text><use href="#photo{order}"/>'
        f'<path transform="translate(0 {_NUMBER}) scale({_CELL / grid:.6g})" '
        f'd="{skipped_patches(computed)}"/></g>'
        for index, computed in enumerate(live)
    )
    shares = " ".join(f"{share:.0%}" for share in live.mean((1, 2)))
    return (
        f'<svg class="blocks" viewBox="0 0 {width:.5g} {height:.5g}" role="img" '
        f'aria-label="Patches of {name} computed in each layer: {shares}">'
        f'<defs><image id="photo{order}" y="{_NUMBER}" width="{_CELL}" height="{_CELL}" '
        f'preserveAspectRatio="none" href="{photograph}"/></defs>{blocks}</svg>'
    )


def skipped_patches(computed: np.ndarray) -> str:
    """SVG path over the patches `[grid, grid]` that were not computed, a patch being 1 x 1."""
    runs = []
    for row, patches in enumerate(computed):
        edges = np.flatnonzero(np.diff(np.concatenate([[True], patches, [True]])))
        runs += [
            f"M{start} {row}h{end - start}v1h{start - end}z" for start, end in edges.reshape(-1, 2)
        ]
    return "".join(runs)


def _matrix(name: str, used: np.ndarray, size: int = 9) -> str:
    """Parts bool `[L, K]` as squares of `size` pixels: a row per layer, filled where it ran."""
    layers, count = used.shape
    squares = "".join(
        f'<rect class="{"on" if used[layer, part] else "off"}" x="{part * (size + 2)}" '
        f'y="{(layers - 1 - layer) * (size + 2)}" width="{size}" height="{size}" rx="1.5"/>'
        for layer in range(layers)
        for part in range(count)
    )
    width, height = count * (size + 2) - 2, layers * (size + 2) - 2
    ran = f"{name} run: {used.mean():.0%}"
    columns = ", ".join(part_names(name, count, long=True))
    order = f"columns: {columns}; layer 1 at the bottom"
    return (
        f'<figure title="{order}"><figcaption>{ran}</figcaption>'
        f'<svg width="{width}" height="{height}" role="img" aria-label="{ran}; {order}">'
        f"{squares}</svg></figure>"
    )
