"""The halves of a block on some of its heads: narrower products, the same updates."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax.numpy as jnp
from jax import Array, lax

from avit_jax.models import attention
from avit_jax.models.layers import Block, gelu, hidden_heads


class Half(Protocol):
    """One half of a block as a function of the rows of some images and of the heads they keep."""

    @property
    def narrows(self) -> bool:
        """Whether dropped heads make it cheaper, and an image without any needs only a constant."""

    def update(self, rows: Array, keys: Array, heads: Array | None, kept: Array) -> Array:
        """What is added to the rows, `[g, n, D]`; to the first of them only if fewer come back.

        Args:
            rows: tokens `[g, n, D]`.
            keys: `[g, n]` bool, rows that are there.
            heads: `[k]`, the heads to compute; all H in their own order if `None`.
            kept: `[g, k]` bool, which of those each image keeps.
        """

    def without_heads(self) -> Array:
        """The update `[D]` of every token of an image that keeps no head."""


@dataclasses.dataclass(frozen=True)
class AttentionHalf:
    """Attention.

    Attributes:
        block: with its parameters.
        effect: what a dropped head takes with it, one of `types.HEAD_EFFECTS`.
        asking: rows at the front whose answers are wanted; all if `None`.
        kernels: `[H, D, 3, d]`, weights of queries, keys and values by head.
    """

    block: Block
    effect: str
    asking: int | None = None
    kernels: Array = dataclasses.field(init=False)

    def __post_init__(self):
        """Sorts the weights by head once, in front of the loops that pick some of them."""
        qkv, total = self.block.attention.qkv, self.block.attention.num_heads
        kernel = qkv.kernel[...].astype(qkv.dtype)
        by_head = kernel.reshape(len(kernel), 3, total, -1).transpose(2, 0, 1, 3)
        object.__setattr__(self, "kernels", by_head)

    @property
    def narrows(self) -> bool:
        """See `Half`: a head that only loses its attention hands on its values."""
        return self.effect != "attention"

    def update(self, rows: Array, keys: Array, heads: Array | None, kept: Array) -> Array:
        """See `Half`."""
        module, normed = self.block.attention, self.block.norm1(rows)
        if self.asking is None:
            query, key, value = self._project(normed, slice(0, 3), heads)
        else:
            (query,) = self._project(normed[:, : self.asking], slice(0, 1), heads)
            key, value = self._project(normed, slice(1, 3), heads)
        mixed = attention.mix(query, key, value, keys=keys, scale=module.scale)
        instead = 0 if self.narrows else value[:, : self.asking]
        mixed = jnp.where(kept[:, None, :, None], mixed, instead)
        kernel = _by_head(module.proj.kernel[...], 0, module.num_heads, heads)
        answer = jnp.einsum("gnhd,hdc->gnc", mixed, kernel.astype(mixed.dtype))
        return answer + module.proj.bias[...].astype(answer.dtype)

    def without_heads(self) -> Array:
        """See `Half`."""
        return self.block.attention.proj.bias[...]

    def _project(self, x: Array, parts: slice, heads: Array | None) -> list[Array]:
        """Of queries, keys and values those wanted, each `[g, n, k, d]`."""
        module, dim = self.block.attention, x.shape[-1]
        if heads is None:
            kernel = module.qkv.kernel[...].reshape(dim, 3, -1)[:, parts]
            kernel = _by_head(kernel, 2, module.num_heads, None)
            found = jnp.einsum("gnc,cphd->gnphd", x, kernel.astype(x.dtype))
        else:
            # One product per head: its weights are copied as one piece, which costs a third less
            # than gathering columns of all heads for one wider product.
            chosen = [lax.dynamic_index_in_dim(self.kernels, h, keepdims=False) for h in heads]
            found = [jnp.einsum("gnc,cpd->gnpd", x, kernel[:, parts]) for kernel in chosen]
            found = jnp.stack(found, axis=3)
        if module.qkv.bias is not None:
            bias = _by_head(module.qkv.bias[...].reshape(3, -1)[parts], 1, module.num_heads, heads)
            found = found + bias.astype(x.dtype)
        return [found[:, :, part] for part in range(found.shape[2])]


@dataclasses.dataclass(frozen=True)
class MlpHalf:
    """The MLP; attributes as of `AttentionHalf`."""

    block: Block
    effect: str

    @property
    def narrows(self) -> bool:
        """See `Half`."""
        return self.effect != "attention"

    def update(self, rows: Array, keys: Array, heads: Array | None, kept: Array) -> Array:
        """See `Half`; every row is by itself, so `keys` do not matter."""
        normed, mlp = self.block.norm2(rows), self.block.mlp
        total, gate = self.block.attention.num_heads, kept[:, None, :, None]
        if self.effect == "channels":
            channels = jnp.where(gate, _by_head(normed, 2, total, heads), 0)
            kernel = _by_head(mlp.fc1.kernel[...], 0, total, heads).astype(normed.dtype)
            hidden = jnp.einsum("gnhd,hdf->gnf", channels, kernel)
            return mlp.fc2(gelu(hidden + mlp.fc1.bias[...].astype(hidden.dtype)))
        if self.effect == "hidden":
            units = mlp.fc1.out_features
            if heads is None or units % total:
                whole = kept if heads is None else _spread(kept, heads, total)
                return mlp(normed, units=whole[:, hidden_heads(units, total)])
            kernel = _by_head(mlp.fc1.kernel[...], 1, total, heads).astype(normed.dtype)
            hidden = jnp.einsum("gnc,chf->gnhf", normed, kernel)
            hidden = hidden + _by_head(mlp.fc1.bias[...], 0, total, heads).astype(hidden.dtype)
            kernel = _by_head(mlp.fc2.kernel[...], 0, total, heads).astype(normed.dtype)
            answer = jnp.einsum("gnhf,hfc->gnc", gelu(jnp.where(gate, hidden, 0)), kernel)
            return answer + mlp.fc2.bias[...].astype(answer.dtype)
        return mlp(normed)

    def without_heads(self) -> Array:
        """See `Half`: nothing but biases comes through."""
        mlp = self.block.mlp
        return mlp.fc2(gelu(mlp.fc1.bias[...])) if self.effect == "channels" else mlp.fc2.bias[...]


def _by_head(array: Array, axis: int, num_heads: int, heads: Array | None) -> Array:
    """`array` with one axis cut into `[heads, rest]`, and of those the heads wanted."""
    size = (*array.shape[:axis], num_heads, -1, *array.shape[axis + 1 :])
    cut = array.reshape(size)
    return cut if heads is None else jnp.take(cut, heads, axis=axis)


def _spread(kept: Array, heads: Array, num_heads: int) -> Array:
    """`[g, k]` of some heads as `[g, H]` of all, the others False."""
    return jnp.zeros((len(kept), num_heads), bool).at[:, heads].set(kept)
