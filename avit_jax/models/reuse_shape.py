"""Sizes of what a network takes over from an earlier one that saw the image on a coarser grid."""

from __future__ import annotations

import dataclasses

from avit_jax.models import grid_resize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reuse:
    """Sizes of feature and relation reuse (DVT, arXiv 2105.15075, section 3.2).

    Attributes:
        grid: patches along each side in the earlier network, which is otherwise of the same sizes.
        context_dim: channels that are joined to the MLP's input of every block; 0 without feature
            reuse.
        context_hidden: hidden width of the small MLPs that make them.
        relations: whether the earlier network's attention scores are added to those of this one.
    """

    grid: int
    context_dim: int
    context_hidden: int
    relations: bool

    def macs(self, *, grid: int, prefix: int, embed_dim: int, depth: int, num_heads: int) -> int:
        """Multiply-adds on one image that make both ready; sizes are those of the later network."""
        total, tokens, sides = 0, prefix + self.grid**2, {"source": self.grid, "target": grid}
        if self.context_dim:
            products = self.context_hidden * (embed_dim + self.context_dim)
            resized = grid_resize.resize_macs(self.context_dim, **sides)
            total += depth * (self.grid**2 * products + resized)
        if self.relations:
            maps = depth * num_heads
            total += 6 * maps**2 * tokens**2
            total += grid_resize.relations_macs(maps, prefix=prefix, **sides)
        return total

    def macs_beyond(self, *, grid: int, prefix: int, depth: int, num_heads: int) -> int:
        """Multiply-adds that resizing relations runs beyond those that `macs` counts."""
        if not self.relations:
            return 0
        sizes = {"prefix": prefix, "source": self.grid, "target": grid}
        maps = depth * num_heads
        run = grid_resize.executed_relations_macs(maps, **sizes)
        return run - grid_resize.relations_macs(maps, **sizes)
