"""One image of the report's gallery: photograph, map, answer and costs, as HTML."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from avit_jax.viz import exit_maps
from avit_jax.viz.html_usage import usage
from avit_jax.viz.look import Looked
from avit_jax.viz.patches import depth_over, on_grid, side_near

SIDE = 336  # pixels of a picture in the page, at most
EXIT_SIDE = 144  # of the map of an exit
THUMBNAIL = 112  # of the one per block
JPEG_QUALITY = 86


def card(
    looked: Looked,
    *,
    order: int,
    class_names: Sequence[str],
    grid: int,
    gmacs_dense: float,
    files: dict[str, str],
) -> str:
    """The HTML of one image in the gallery: pictures, answer, depth, cost and what ran.

    Args:
        looked: the image.
        order: its place among all images.
        class_names: of the model.
        grid: patches along each side.
        gmacs_dense: cost of an image with nothing skipped.
        files: what lies beside the page: addresses by name, the figure of the map first.
    """
    layers, depths = len(looked.live), on_grid(looked.depth, grid)
    side = side_near(SIDE, grid)
    name, mean = escaped(looked.name), float(looked.depth.mean())
    spread = f"from {depths.min()} to {depths.max()} of {layers} layers"
    live = np.packbits(on_grid(looked.live, grid).ravel())
    right = "" if looked.label is None else str(int(looked.label == looked.answer))
    share = looked.gmacs / gmacs_dense
    figure = next(iter(files.values()))
    links = "".join(f'<a href="{address}">{text}</a>' for text, address in files.items())
    blocks = usage(
        looked,
        photograph=jpeg(looked.photograph, THUMBNAIL),
        name=name,
        order=order,
        grid=grid,
    )
    return f"""
<article class="card" id="image{order}" data-order="{order}"{_exit_data(looked)}
  data-depth="{mean:.6f}" data-gmacs="{looked.gmacs:.9g}"
  data-confidence="{looked.confidence:.6f}" data-right="{right}" data-grid="{grid}"
  data-live="{base64.b64encode(live.tobytes()).decode()}">
<div class="pair"><div><img src="{jpeg(looked.photograph, side)}" alt="{name}"></div>
<a href="{figure}" title="open the figure"><img
  src="{jpeg(depth_over(looked.photograph, depths, layers), side)}"
  alt="Depth map of {name}: patches went through {spread}"><canvas hidden></canvas></a></div>
<div class="text"><h3 class="name" title="{name}">{name}</h3>
<p class="answer"><span>{escaped(class_names[looked.answer])}</span>
<span>{looked.confidence:.0%}</span></p>
{_truth(looked, class_names)}
<dl class="measures">{_measure("Depth", f"{mean:.1f} of {layers} layers", mean / layers)}
{_measure("GMACs", f"{looked.gmacs:.4g} ({share:.0%} of dense)", share)}{_exit(looked)}</dl>
{_exit_maps(looked, name)}{blocks}
<p class="files">{links}</p>
</div></article>"""


def _truth(looked: Looked, class_names: Sequence[str]) -> str:
    if looked.label is None:
        return ""
    if looked.label == looked.answer:
        return '<p class="truth right">✓ right</p>'
    name = escaped(class_names[looked.label])
    return f'<p class="truth"><span class="wrong">✗ wrong</span>, it is {name}</p>'


def _exit(looked: Looked) -> str:
    if looked.exit is None:
        return ""
    count = len(looked.exit_answers)
    return _measure("Exit", f"{looked.exit + 1} of {count}", (looked.exit + 1) / count)


def _exit_data(looked: Looked) -> str:
    return "" if looked.exit is None else f' data-exit="{looked.exit + 1}"'


def _exit_maps(looked: Looked, name: str) -> str:
    """A depth map for each exit, an empty place for those that the image did not reach."""
    if looked.exit is None:
        return ""
    figures = ""
    for index in range(len(looked.exit_maps)):
        words, picture = exit_maps.caption(looked, index), "<i></i>"
        if index <= looked.exit:
            source = jpeg(exit_maps.map_over(looked, index, EXIT_SIDE), EXIT_SIDE)
            picture = f'<img src="{source}" alt="Depth map of {name}, {words}">'
        figures += f"<figure>{picture}<figcaption>{words}</figcaption></figure>"
    return f'<div class="maps">{figures}</div>'


def _measure(name: str, value: str, share: float) -> str:
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        f'<dt>{name}</dt><dd class="track" aria-hidden="true"><i style="width:{width:.1f}%"></i>'
        f"</dd><dd>{value}</dd>"
    )


def jpeg(pixels: np.ndarray, side: int) -> str:
    """Pixels uint8 `[S, S, 3]` as the data URI of a JPEG, colours at full resolution."""
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return data_uri(buffer.getvalue(), "jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """The content of a picture ("png", "jpeg") as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def escaped(text: str) -> str:
    """Text for HTML; bytes of file names that are no UTF-8 become question marks."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"), quote=True)
