"""The layers as frames of an animated GIF: computed patches bright, all others dimmed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from avit_jax.viz import palette
from avit_jax.viz.look import Looked
from avit_jax.viz.patches import dimmed, on_grid, side_near
from avit_jax.viz.sheet import font

SIDE = 336  # pixels of a frame's picture, at most
LAYER_MILLISECONDS, LAST_MILLISECONDS = 550, 1800
_CAPTION = 58  # pixels under the picture
_MARGIN = 10
_PAPER, _INK, _QUIET, _TRACK = (255, 255, 255), (28, 32, 40), (92, 99, 112), (226, 229, 235)


def frames(looked: Looked, *, grid: int, gmacs_dense: float) -> list[Image.Image]:
    """One RGB picture per layer, captioned with its number, computed patches and GMACs so far.

    Args:
        looked: the image.
        grid: patches along each side.
        gmacs_dense: cost of an image with nothing skipped.
    """
    side = side_near(SIDE, grid)
    photograph = Image.fromarray(looked.photograph).resize((side, side), Image.Resampling.LANCZOS)
    live = on_grid(looked.live, grid)
    pictures = dimmed(np.asarray(photograph), live)
    colours = palette.colours(len(live))
    result = []
    for layer, (picture, computed) in enumerate(zip(pictures, live, strict=True)):
        frame = Image.new("RGB", (side, side + _CAPTION), _PAPER)
        frame.paste(Image.fromarray(picture))
        _caption(
            ImageDraw.Draw(frame),
            side,
            title=f"layer {layer + 1} of {len(live)}",
            patches=_patches(looked.live, layer, computed),
            cost=f"{looked.gmacs_until[layer]:.4g} of {gmacs_dense:.4g} GMACs",
            colour=palette.hexadecimal(colours[layer]),
            share=(layer + 1) / len(live),
        )
        result.append(frame)
    return result


def _patches(live: np.ndarray, layer: int, computed: np.ndarray) -> str:
    """How many patches one layer computed, in words.

    Args:
        live: tokens computed in each layer, bool `[L, N]`.
        layer: index of the layer.
        computed: its patches, bool `[grid, grid]`.
    """
    if live[layer].any():
        return f"{computed.sum()} of {computed.size} patches"
    return "left out" if live[layer:].any() else "finished"


def write(looked: Looked, path: Path, *, grid: int, gmacs_dense: float) -> None:
    """Write the frames as a GIF that starts again after a pause on the last layer."""
    drawn = frames(looked, grid=grid, gmacs_dense=gmacs_dense)
    shared = _shared_palette(drawn)
    indexed = [frame.quantize(palette=shared, dither=Image.Dither.NONE) for frame in drawn]
    indexed[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=[LAYER_MILLISECONDS] * (len(drawn) - 1) + [LAST_MILLISECONDS],
        loop=0,
    )


def _shared_palette(drawn: list[Image.Image]) -> Image.Image:
    """One palette for all frames: colours that changed from layer to layer would flicker."""
    fixed = np.concatenate([palette.colours(len(drawn))[:100], np.uint8([_PAPER, _INK, _TRACK])])
    # The first layer shows most of the photograph, the last has most of the dimmed patches.
    # A sixteenth of their pixels has the same colours, and finding them took most of the time.
    strip = np.concatenate([np.asarray(one)[::4, ::4] for one in (drawn[0], drawn[-1])], axis=1)
    common = Image.fromarray(strip).quantize(256 - len(fixed), method=Image.Quantize.MEDIANCUT)
    shared = Image.new("P", (1, 1))
    shared.putpalette([*common.getpalette()[: 3 * (256 - len(fixed))], *fixed.ravel().tolist()])
    return shared


def _caption(
    draw: ImageDraw.ImageDraw,
    side: int,
    *,
    title: str,
    patches: str,
    cost: str,
    colour: str,
    share: float,
) -> None:
    """Write the caption under a picture of `side` pixels, with a bar that is full to `share`."""
    draw.rectangle((0, side, side, side + 4), fill=_TRACK)
    draw.rectangle((0, side, round(side * share), side + 4), fill=colour)
    top = side + 11
    draw.text((_MARGIN, top), title, fill=_INK, font=font(15, bold=True))
    right = side - _MARGIN
    draw.text((right, top + 2), patches, fill=_INK, font=font(13), anchor="ra")
    draw.text((right, top + 22), cost, fill=_QUIET, font=font(13), anchor="ra")
