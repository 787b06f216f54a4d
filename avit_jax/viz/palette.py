"""Colours: one for each number of layers, the same in all pictures and charts of a report.

Viridis reads the same to colour-blind eyes and in grey, and no colour of its middle is a grey,
which would vanish on a photograph. It is cut into one colour per layer, so that a legend has as
many entries as the model has layers and every shade can be named.
"""

from __future__ import annotations

import numpy as np

COLOUR_MAP = "viridis"
# Colours for kinds of things that colour-blind eyes tell apart (Okabe and Ito 2008).
OKABE_ITO = {
    "blue": "#0072b2",
    "orange": "#e69f00",
    "green": "#009e73",
    "purple": "#cc79a7",
    "vermilion": "#d55e00",
    "sky": "#56b4e9",
}
GREY = "#555555"  # of what the others are compared with
EXECUTION_STYLES = {  # colour and marker of each execution
    "dense": (GREY, "s"),
    "masked": (OKABE_ITO["orange"], "v"),
    "compact": (OKABE_ITO["blue"], "o"),
    "static": (OKABE_ITO["sky"], "^"),
    "capped": (OKABE_ITO["green"], "D"),
    "torch eager": (OKABE_ITO["purple"], "x"),
    "torch compile": (OKABE_ITO["vermilion"], "+"),
}
LEGEND = "layers computed per patch (dark: few, bright: many)"


def colours(depth: int) -> np.ndarray:
    """Colours of 1, 2, ..., `depth` layers, uint8 `[L, 3]`."""
    from matplotlib import colormaps

    shades = colormaps[COLOUR_MAP](np.linspace(0.0, 1.0, depth))[:, :3]
    return np.rint(255 * shades).astype(np.uint8)


def hexadecimal(colour: np.ndarray) -> str:
    """A colour uint8 `[3]` as "#rrggbb"."""
    return "#" + bytes(colour.tolist()).hex()


def ink_on(colour: np.ndarray) -> str:
    """Black or white, whichever is easier to read on a colour uint8 `[3]`.

    The one with the higher contrast ratio of the Web Content Accessibility Guidelines 2.2.
    """
    share = np.asarray(colour, np.float64) / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "#000000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#ffffff"


def paint(depths: np.ndarray, depth: int) -> np.ndarray:
    """Colours of numbers of layers in an array of any shape, uint8 `[..., 3]`; 0 is black."""
    table = np.concatenate([np.zeros((1, 3), np.uint8), colours(depth)])
    return table[np.clip(depths, 0, depth)]
