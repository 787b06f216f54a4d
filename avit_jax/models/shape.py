"""All that determines a backbone: sizes, the parts that its blocks are made of, and names.

A `Shape` is frozen and can be hashed; it makes its modules (`backbone.py`), and it is what costs
are counted from, weights are fitted to, and a config's section `model` is declared by.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from flax import nnx

from avit_jax.errors import UserError
from avit_jax.models import shape_checks
from avit_jax.models.attention_kinds import KINDS, Kind
from avit_jax.models.fused_attention import can_be_fused
from avit_jax.models.layers import BlockShape
from avit_jax.models.norms import NORM_EPS
from avit_jax.models.positions import ENCODINGS, PositionEncoding
from avit_jax.models.reuse_shape import Reuse
from avit_jax.models.tokens import Tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape(Tokens, abc.ABC):
    """All that determines a backbone's parameters and arithmetic; its tokens are in `Tokens`.

    Attributes:
        image_size: height and width of the images, in pixels.
        embed_dim: channels D of a token; a multiple of `num_heads`.
        depth: number of blocks L.
        num_heads: attention heads H.
        mlp_ratio: hidden width of the MLPs over `embed_dim`.
        qkv_bias: whether q, k and v have a bias.
        attention: how queries and keys weight values: "dot", the softmax of their products,
          "cosine", that of their cosines times a factor that every head learns (arXiv 2111.09883),
          or "linear", products of cosine features, whose cost is linear in the number of tokens
          (arXiv 2009.14794).
        qk_norm: whether queries and keys are layer-normalised in each head (arXiv 2302.05442); not
          with "cosine".
        layer_scale: what the channels of every update are multiplied by at first, such as 1e-5
          (LayerScale, arXiv 2103.17239); `None` for no such parameters.
        norm: of the tokens in front of each half of a block: "layernorm", "rmsnorm", or
          "instancenorm" over an image's live tokens. The last norm, of the tokens that
          classifiers read, is a layer norm, then.
        norm_eps: added to the variance, or to the mean square, in all norms.
        num_classes: classes C.
        pos_embed: how tokens know where they are: a table added to them, "learned", or fixed as
          "sinusoidal" (of the token's number) or "sinusoidal_2d" (of row and column); queries and
          keys turned in every block, "rope_1d" (by the patch's number) or "rope_2d" (by row and
          column); or "none". All but learnt ones need no resizing for images of another size.
        mixer: what makes tokens know of each other in a block: "attention", or "mlp" over the slots
          of all tokens (MLP-Mixer), in which halted tokens leave theirs empty; then parameters
          depend on the number of tokens, and nothing can be left out but by masks.
        token_mlp_ratio: hidden width of that MLP over `embed_dim`.
        drop_path_rate: stochastic depth of the last block; rises linearly from 0 at the first.
        dropout_rate: dropout on the embedded tokens and on every update.
        dtype: dtype of the arithmetic, "float32" or "bfloat16"; parameters, norms' statistics,
          softmax and halting are float32 always.
        remat: recompute whole blocks in the backward pass, linear layers included, for memory.
        fused_attention, ragged_attention, unrolled, reuse: of a program or a cascade, no settings.
    """

    image_size: int = dataclasses.field(default=224, metadata={"use": True})
    embed_dim: int = 192
    depth: int = 12
    num_heads: int = 3
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    attention: str = "dot"
    qk_norm: bool = False
    layer_scale: float | None = None
    norm: str = "layernorm"
    norm_eps: float = NORM_EPS
    num_classes: int = 1000
    pos_embed: str = "learned"
    mixer: str = "attention"
    token_mlp_ratio: float = 0.5
    drop_path_rate: float = 0.0
    dropout_rate: float = 0.0
    dtype: str = dataclasses.field(default="float32", metadata={"use": True})
    remat: bool = dataclasses.field(default=False, metadata={"use": True})
    fused_attention: bool = dataclasses.field(default=False, metadata={"config": False})
    ragged_attention: bool = dataclasses.field(default=False, metadata={"config": False})
    unrolled: bool = dataclasses.field(default=False, metadata={"config": False})
    reuse: Reuse | None = dataclasses.field(default=None, metadata={"config": False})

    def __post_init__(self):
        shape_checks.check(self)
        self.check_tokens()

    @abc.abstractmethod
    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        """All parameters of the backbone as one NNX module, a `Backbone`."""

    def with_grid(self, grid: int) -> Self:
        """The same network on so many patches along each side, for an exit of a cascade."""
        raise UserError(f"{type(self).__name__} has one grid: build cascades on ViT or T2T-ViT.")

    @property
    @abc.abstractmethod
    def patch_size(self) -> int:
        """Pixels between the centres of two neighbouring patches; see `check_tiled`."""

    @property
    @abc.abstractmethod
    def embedding_macs(self) -> int:
        """Multiply-adds that turn one image into patch tokens."""

    @property
    def frozen(self) -> frozenset[str]:
        """Paths of parameters that are never trained, such as fixed tables of positions."""
        return frozenset() if self.position_encoding.is_trained else frozenset({"pos_embed"})

    @property
    def position_encoding(self) -> PositionEncoding:
        """How its tokens know where they are."""
        kind = ENCODINGS[self.pos_embed]
        prefix = self.num_prefix_tokens if kind.acts_on_heads else self.num_prefix_places
        return kind(prefix=prefix, grid=self.grid)

    @property
    def upstream_names(self) -> Mapping[str, str]:
        """What PyTorch code calls the modules and parameters that turn images into patch tokens.

        Those that are not listed have the same names there.
        """
        return {}

    @property
    def patch_embedding(self) -> str | None:
        """The linear layer that makes each token of nothing but its own patch's pixels, if any."""
        return None

    @property
    def convolutions(self) -> Mapping[str, int]:
        """Linear layers over square patches that PyTorch code has as convolutions, with the side.

        Their inputs are ordered by row, column and colour.
        """
        return {}

    def patches_as_onnx(self, graph: Any, params: Mapping[str, Any], pixels: str) -> str:
        """Patch tokens `[B, grid * grid, D]` without positions, added to an ONNX graph.

        Args:
            graph: an `export.onnx_writer.Graph`.
            params: of the whole model.
            pixels: name of the normalised images, `[B, H, W, 3]`.

        Raises:
            UserError: the backbone has not been written down for ONNX.
        """
        raise UserError(
            f"a {type(self).__name__.removesuffix('Shape')} cannot be written as ONNX: leave out "
            "the .onnx of --output for a StableHLO export."
        )

    @property
    def draws(self) -> bool:
        """Whether training draws at random, so that a call needs a key."""
        return bool(self.drop_path_rate or self.dropout_rate)

    @property
    def grid(self) -> int:
        """Patches along each side of the image."""
        return self.image_size // self.patch_size

    @property
    def block(self) -> BlockShape:
        """Sizes of every block."""
        return BlockShape(
            embed_dim=self.embed_dim,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            qkv_bias=self.qkv_bias,
            extra_dim=self.reuse.context_dim if self.reuse else 0,
            dropout_rate=self.dropout_rate,
            attention=self.attention,
            qk_norm=self.qk_norm,
            layer_scale=self.layer_scale,
            norm=self.norm,
            norm_eps=self.norm_eps,
            fused_attention=self.fused_attention,
            position_encoding=self.position_encoding,
            mixer=self.mixer,
            token_mlp_ratio=self.token_mlp_ratio,
            num_tokens=self.num_tokens,
            dtype=jnp.dtype(self.dtype),
        )

    @property
    def tokens_keep_slots(self) -> bool:
        """Whether parameters belong to places of tokens, so that rows of tokens cannot move."""
        return self.mixer == "mlp"

    @property
    def attention_can_be_fused(self) -> bool:
        """Whether there is a fused kernel for its heads."""
        return self.has_scores and can_be_fused(
            dtype=self.dtype, head_dim=self.embed_dim // self.num_heads
        )

    @property
    def has_scores(self) -> bool:
        """Whether blocks form a score for every pair of tokens; not all attention does."""
        return not self.tokens_keep_slots and self.kind_of_attention.has_scores

    @property
    def kind_of_attention(self) -> type[Kind]:
        """The class that `attention` names."""
        return KINDS[self.attention]

    def drop_path_rates(self) -> np.ndarray:
        """Stochastic depth of each block, `[L]`."""
        return np.linspace(0.0, self.drop_path_rate, self.depth, dtype=np.float32)
