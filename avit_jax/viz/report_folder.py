"""The files of a report about images and what a model did with them.

`index.html` is the page, `summary.json` its numbers, `images/` holds per image two figures for
papers (depth, and what ran block by block) and an animation over the layers, `charts/` the charts
over all images for papers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from avit_jax.errors import UserError
from avit_jax.runtime.files import write_json_atomic, write_text_atomic
from avit_jax.viz import (
    chart_choice,
    chart_style,
    depth_figure,
    exit_gallery,
    html_card,
    html_gallery,
    html_report,
    image_statistics,
    layer_animation,
    usage_figure,
)
from avit_jax.viz.look import Looked, Unreadable


def write_report(
    images: Iterable[Looked | Unreadable],
    folder: Path,
    *,
    model: str,
    grid: int,
    gmacs_dense: float,
    step: int | None,
    class_names: Sequence[str],
    data: str,
    total: int,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write a report about images into an empty folder.

    Args:
        images: from `look`, read once.
        folder: exists.
        model: its name.
        grid: patches along each side of an image.
        gmacs_dense: cost of an image with nothing skipped.
        step: of the checkpoint; `None` for weights of a file.
        class_names: of the model.
        data: what the images are.
        total: images there are to choose from.
        notes: sentences for the foot of the page.

    Returns:
        What `summary.json` holds.

    Raises:
        UserError: no image is readable.
    """
    rows: list[image_statistics.Row] = []
    cards: list[str] = []
    gallery = exit_gallery.Gallery()
    unreadable: list[Unreadable] = []
    (folder / "images").mkdir()
    (folder / "charts").mkdir()
    for order, looked in enumerate(images):
        if isinstance(looked, Unreadable):
            unreadable.append(looked)
            continue
        stem = f"images/{order:04d}_{file_stem(looked.name)}"
        files = {
            "Depth PNG": f"{stem}_depth.png",
            "Blocks PNG": f"{stem}_blocks.png",
            "Layers GIF": f"{stem}_layers.gif",
        }
        figure, blocks, animation = (folder / name for name in files.values())
        title = _title(looked, class_names)
        depth_figure.write(looked, figure, title=title, grid=grid)
        usage_figure.write(looked, blocks, title=title, grid=grid)
        layer_animation.write(looked, animation, grid=grid, gmacs_dense=gmacs_dense)
        cards.append(
            html_card.card(
                looked,
                order=order,
                class_names=class_names,
                grid=grid,
                gmacs_dense=gmacs_dense,
                files=files,
            )
        )
        gallery.add(looked, order)
        rows.append(image_statistics.row(looked))
    if not rows:
        raise UserError(
            f"none of the chosen images of {data} is readable "
            f"({unreadable[0].name} {unreadable[0].reason}): write the path of image files."
        )
    summary = image_statistics.summarise(rows, class_names, gmacs_dense=gmacs_dense)
    for chart in chart_choice.chosen(summary):
        content = chart.draw(summary, chart_style.PAPER)
        (folder / "charts" / f"{chart.name}.png").write_bytes(content)
    if gallery.rows:
        content = exit_gallery.draw(gallery, class_names)
        (folder / "charts" / "exit_photographs.png").write_bytes(content)
    page = html_report.page(
        cards,
        unreadable,
        summary,
        model=model,
        step=step,
        data=data,
        total=total,
        gallery=html_gallery.section(gallery, class_names),
        notes=notes,
    )
    write_text_atomic(folder / "index.html", page)
    summary |= {"model": model, "step": step, "data": data}
    summary["unreadable"] = [{"name": one.name, "reason": one.reason} for one in unreadable]
    write_json_atomic(folder / "summary.json", summary)
    return summary


def file_stem(name: str) -> str:
    """The end of an image's name, made safe to be part of a file name in any file system or URL."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).with_suffix("").as_posix())
    return plain.strip(".-")[-60:] or "image"


def _title(looked: Looked, class_names: Sequence[str]) -> str:
    answer = f"{class_names[looked.answer]} {looked.confidence:.0%}"
    if looked.label in (None, looked.answer):
        return answer
    return f"{answer} (is {class_names[looked.label]})"
