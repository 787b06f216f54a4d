"""Sizes of each exit's network: its grid, and what it takes over."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from avit_jax.errors import UserError
from avit_jax.methods.dvt.settings import Settings
from avit_jax.models.reuse_shape import Reuse
from avit_jax.models.shape import Shape
from avit_jax.models.soft_split import Split
from avit_jax.models.t2t import T2TShape


def on_images_of(cascade: Any, other: Any) -> Any:
    """A cascade on images of the size and, if it has as many, on the grids of another model.

    Raises:
        UserError: that model has no such grids.
    """
    shape = dataclasses.replace(cascade.shape, image_size=other.shape.image_size)
    settings, theirs = cascade.settings, other.settings
    if isinstance(theirs, Settings) and len(theirs.grids) == len(settings.grids):
        settings = dataclasses.replace(
            settings, grids=theirs.grids, first_splits=theirs.first_splits
        )
    return dataclasses.replace(cascade, shape=shape, settings=settings)


def refuse_other_grid(shape: Shape, grids: tuple[int, ...]) -> None:
    """Raises UserError unless the last grid is that of the backbone."""
    if grids[-1] == shape.grid:
        return
    scaled = tuple(round(grid * shape.grid / grids[-1]) for grid in grids)
    rises = scaled[0] > 0 and all(one < other for one, other in itertools.pairwise(scaled))
    way = f"grids {scaled}" if rises else "another last grid"
    raise UserError(
        f"grids {grids} end with {grids[-1]}, but images of {shape.image_size} pixels have "
        f"{shape.grid} patches along each side: write {way}, or another image_size or patch_size."
    )


def stages(shape: Shape, settings: Settings) -> tuple[Shape, ...]:
    """The exits' sizes, the coarsest first.

    Args:
        shape: of the finest, without what it takes over.
        settings: of the cascade.

    Raises:
        UserError: the backbone has not these grids, or soft splits make others.
    """
    found: list[Shape] = []
    for index, grid in enumerate(settings.grids):
        one = _on_grid(shape, index, grid, settings)
        if found and (settings.feature_reuse or settings.relation_reuse):
            reuse = Reuse(
                grid=found[-1].grid,
                context_dim=settings.context_dim * settings.feature_reuse,
                context_hidden=settings.context_hidden,
                relations=settings.relation_reuse,
            )
            one = dataclasses.replace(one, reuse=reuse)
        found.append(one)
    return tuple(found)


def _on_grid(shape: Shape, index: int, grid: int, settings: Settings) -> Shape:
    if grid == shape.grid:
        return shape
    if not settings.first_splits:
        return shape.with_grid(grid)
    if not isinstance(shape, T2TShape):
        raise UserError("first_splits are for T2T-ViTs: leave them out for this backbone.")
    first = settings.first_splits[index]
    one = dataclasses.replace(shape, splits=(Split(*first), *shape.splits[1:]))
    if one.grid != grid:
        raise UserError(
            f"first_splits has {first}, which makes {one.grid} x {one.grid} tokens and not "
            f"{grid} x {grid}: write another size, stride or padding, or leave first_splits out."
        )
    return one
