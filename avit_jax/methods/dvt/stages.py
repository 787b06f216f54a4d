"""Sizes of each exit's network: its grid, and what it takes over."""

from __future__ import annotations

import dataclasses

from avit_jax.errors import UserError
from avit_jax.methods.dvt.settings import Settings
from avit_jax.models.backbone import Shape
from avit_jax.models.reuse_shape import Reuse
from avit_jax.models.soft_split import Split
from avit_jax.models.t2t import T2TShape


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
