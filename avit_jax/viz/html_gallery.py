"""The page's section on exits: photographs by the exit that they left at, each a link to its card.

What is shown is what `exit_gallery` draws for papers.
"""

from __future__ import annotations

from collections.abc import Sequence

from avit_jax.viz import exit_gallery, exit_maps
from avit_jax.viz.exit_gallery import Gallery, Placed
from avit_jax.viz.html_card import escaped, jpeg

SIDE = 144  # pixels of a picture


def section(gallery: Gallery, class_names: Sequence[str]) -> str:
    """The HTML of the section; nothing for models with one exit.

    Args:
        gallery: the images.
        class_names: of the model.
    """
    if not gallery.rows:
        return ""
    halts = gallery.halts
    below = " Below each, what its patches went through in every exit that ran." * halts
    rows = "".join(
        f'<h3 class="exit">Exit {index + 1} <span>{gallery.about(index)}</span></h3>'
        f'<div class="photos">{_links(row, class_names, maps=halts * (index + 1))}</div>'
        for index, row in enumerate(gallery.rows)
    )
    return (
        '<h2>Which images stop where</h2><p class="about">The surest answers of each exit come '
        f"first, the least sure last.{below}</p>{rows}"
    )


def _links(row: Sequence[Placed], class_names: Sequence[str], *, maps: int) -> str:
    return "".join(_link(placed, class_names, maps=maps) for placed in row)


def _link(placed: Placed, class_names: Sequence[str], *, maps: int) -> str:
    looked = placed.looked
    text, is_wrong = exit_gallery.caption(looked, class_names)
    text, name = escaped(text), escaped(looked.name)
    mark = ' class="wrong"' if is_wrong else ""
    below = "".join(
        f'<img src="{jpeg(exit_maps.map_over(looked, index, SIDE), SIDE)}" '
        f'alt="{exit_maps.caption(looked, index)}" title="{exit_maps.caption(looked, index)}">'
        for index in range(maps)
    )
    return (
        f'<a href="#image{placed.order}" title="{name}">'
        f'<img src="{jpeg(looked.photograph, SIDE)}" alt="{name}">{below}'
        f"<b{mark}>{text}</b><span>{looked.confidence:.1%}</span></a>"
    )
