"""The report as one page that opens without a network and can be mailed as it is.

All pictures that the page shows are inside it as data URIs, at the size of a screen; the figures
for papers and the animations lie beside it and are linked. File and class names come from outside,
so each is escaped, and a content security policy allows no script but the page's own and no
request to any address.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avit_jax.viz import chart_choice, chart_style, depth_charts, palette
from avit_jax.viz.html_card import data_uri, escaped
from avit_jax.viz.look import Unreadable
from avit_jax.viz.page_assets import SCRIPT, STYLE

GENERATOR = "avit_jax --mode visualize"  # in the page; marks a folder as a report
# What the shares of parts refer to. That of tokens is not shown, since the depth says the same.
_READABLE = 16  # numbers beside each other in a legend; of more, every third is shown
_OF_PART = {"heads": "of all heads of all blocks", "halves": "of all attention and MLP halves"}


def is_report(folder: Path) -> bool:
    """Whether a folder holds a report, which another may replace."""
    page = folder / "index.html"
    if not page.is_file():
        return False
    with page.open("rb") as file:
        return GENERATOR.encode() in file.read(2000)


def page(
    cards: Sequence[str],
    unreadable: Sequence[Unreadable],
    summary: dict[str, Any],
    *,
    model: str,
    step: int | None,
    data: str,
    total: int,
    gallery: str = "",
    notes: Sequence[str] = (),
) -> str:
    """The HTML of the whole page.

    Args:
        cards: from `html_card.card`.
        unreadable: what could not be shown.
        summary: from `image_statistics.summarise`.
        model: its name.
        step: of the checkpoint; `None` for weights of a file.
        data: what the images are.
        total: images there are to choose from.
        gallery: from `html_gallery.section`.
        notes: sentences for the foot of the page.
    """
    depth = len(summary["depth_histogram"])
    chosen = len(cards) + len(unreadable)
    shown = f"all {_images(total)}" if chosen == total else f"{chosen:,} of {_images(total)}"
    spaced = "" if chosen == total else ", evenly spaced"
    origin = "Weights of a file" if step is None else f"Checkpoint of step {step:,}"
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
  style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="{GENERATOR}">
<title>{escaped(model)}: where it computes</title>
<style>{STYLE}</style>
</head>
<body>
<header><div class="wide">
<p class="kind">Adaptive computation, image by image</p>
<h1>{escaped(model)}</h1>
<p class="about">{origin} · {escaped(data)} · {shown}{spaced}.<br>
All figures are over the images on this page.</p>
{_figures(summary, len(unreadable))}
</div></header>
<main>
<div class="wide"><h2>All images together</h2>
{_charts(summary)}
{gallery}
<h2>Image by image</h2></div>
<div class="bar"><div class="wide">
{_keys(summary)}
{_controls(summary)}
</div></div>
<div class="wide"><div class="gallery" id="gallery">{"".join(cards)}</div>
{_unreadable(unreadable)}</div>
</main>
<footer><div class="wide">
<p>The colour of a patch says how many of the {depth} layers it went through; the photograph shows
through as light and shade inside each patch only, so that colours can be read off the legend. The
depth of an image is the mean over all its tokens, the class token included. GMACs are
10<sup>9</sup> multiply-adds of one image, from embedding to classifier. Once the answer of an image
is settled nothing of it is computed any more, even where patches had not come to rest.</p>
{_parts_note(summary)}{_exits_note(summary)}
<p>The small photographs show one layer each, patches that it left out covered. Cost and difficulty:
each point is an image; the line joins the means of equally large groups, by confidence.</p>
<p>Figures for print and animations lie in the folder <code>images</code>, charts in
<code>charts</code>, numbers in <code>summary.json</code> beside this page. The page itself needs
none of them and no network.</p>
{"".join(f"<p>{escaped(note)}</p>" for note in notes)}
</div></footer>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _figures(summary: dict[str, Any], unreadable: int) -> str:
    depth = len(summary["depth_histogram"])
    gmacs, gmacs_dense = summary["gmacs"], summary["gmacs_dense"]
    images = f"and {unreadable:,} unreadable" if unreadable else "none unreadable"
    tiles = [
        ("Images", f"{summary['images']:,}", images),
        ("Mean depth", f"{summary['mean_depth']:.2f}", f"of {depth} layers per token"),
        (
            "Mean GMACs",
            f"{gmacs:.4g}",
            f"{gmacs / gmacs_dense:.0%} of {gmacs_dense:.4g} with nothing skipped",
        ),
    ]
    tiles += [
        (f"{part.capitalize()} run", f"{share:.0%}", _OF_PART[part])
        for part, share in summary["kept"].items()
        if part in _OF_PART
    ]
    if summary["labelled"]:
        known = f"of {_images(summary['labelled'])} whose class is known"
        tiles.append(("Accuracy", f"{summary['top1']:.1%}", known))
    boxes = "".join(
        f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="figures">{boxes}</dl>'


def _charts(summary: dict[str, Any]) -> str:
    blocks = []
    for one in chart_choice.chosen(summary):
        light, dark = (
            data_uri(one.draw(summary, theme), "png")
            for theme in (chart_style.LIGHT, chart_style.DARK)
        )
        blocks.append(
            f"<figure><figcaption>{one.title}</figcaption><picture>"
            f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img src="{light}" alt="{escaped(one.words)}"></picture></figure>'
        )
    return f'<div class="charts">{"".join(blocks)}</div>'


def _keys(summary: dict[str, Any]) -> str:
    """Legends of the maps: of all layers, and of the layers of one exit."""
    first, exits = depth_charts.first_count(summary), summary["exits"]
    keys = [("Layers", len(summary["depth_histogram"]))]
    if exits is not None:
        keys.append(("Layers in one exit", max(exits["layers"])))
    return "".join(
        f'<div class="key"><span>{name}</span>{_legend(depth, first=first)}</div>'
        for name, depth in keys
    )


def _legend(depth: int, *, first: int) -> str:
    counts = range(first, depth + 1)
    entries = "".join(
        f'<li style="background:{palette.hexadecimal(colour)};color:{palette.ink_on(colour)}">'
        f"{layers}</li>"
        for layers, colour in zip(counts, palette.paint(np.array(counts), depth), strict=True)
    )
    many = " many" if len(counts) > _READABLE else ""
    return f'<ol class="legend{many}" aria-label="{palette.LEGEND}">{entries}</ol>'


def _controls(summary: dict[str, Any]) -> str:
    depth = len(summary["depth_histogram"])
    keys = (
        ("order", "order"),
        ("depth", "depth"),
        ("gmacs", "GMACs"),
        ("confidence", "confidence"),
    )
    options = "".join(f'<option value="{key}">{name}</option>' for key, name in keys)
    show = (
        '<label>Show <select id="show"><option value="">all</option>'
        '<option value="1">right answers</option><option value="0">wrong answers</option>'
        "</select></label>"
    )
    stops = ""
    if summary["exits"] is not None:
        exits = "".join(
            f'<option value="{number}">exit {number}</option>'
            for number in range(1, len(summary["exits"]["layers"]) + 1)
        )
        stops = f'<label>Stops at <select id="stops"><option value="">any</option>{exits}</select>'
        stops += "</label>"
    return f"""<div class="controls" id="controls" hidden>
<label>Sort by <select id="sort">{options}</select></label>
<button id="direction" type="button" aria-label="reverse the order">↑</button>
{show if summary["labelled"] else ""}{stops}
<label>Tokens in <input id="layer" type="range" min="0" max="{depth}" value="0">
<output id="layer-name" for="layer">depth map</output></label>
<button id="play" type="button">Play</button></div>"""


def _unreadable(unreadable: Sequence[Unreadable]) -> str:
    if not unreadable:
        return ""
    entries = "".join(
        f"<li>{escaped(one.name)} <span>{escaped(one.reason)}</span></li>" for one in unreadable
    )
    return f'<h2>Unreadable</h2><ul class="unreadable" id="unreadable">{entries}</ul>'


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def _parts_note(summary: dict[str, Any]) -> str:
    if not summary["kept_per_layer"]:
        return ""
    return (
        "<p>A half is the attention or the MLP of a block; a block without either leaves tokens "
        "as they are. A head counts as run where its attention ran.</p>"
    )


def _exits_note(summary: dict[str, Any]) -> str:
    if summary["exits"] is None:
        return ""
    return (
        "<p>Exits have patches of different sizes. The map of all layers adds them up on the "
        "finest grid; the map of an exit has the patches of that exit, and is empty where the "
        "image had left before.</p>"
    )
