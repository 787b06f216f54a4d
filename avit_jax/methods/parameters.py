"""The part of a method's contract that is about its parameters: fresh ones, and other people's."""

from __future__ import annotations

import abc
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import numpy as np
from flax import nnx
from jax import Array

from avit_jax.models import functional
from avit_jax.models.shape import Shape
from avit_jax.pretrained import names, spelling, transformers_names
from avit_jax.pretrained.arrays import refuse_unusable
from avit_jax.pretrained.fit import fit

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Parameterized(abc.ABC):
    """What has a backbone's parameters and perhaps some of its own, in a plain nested dict.

    Attributes:
        shape: the backbone's sizes.
        settings: the method's options.
        upstream_names: what PyTorch code calls modules and parameters that are the method's own.
        one_network: whether `build` makes one backbone, with what the method has beside it.
    """

    shape: Shape
    settings: Any
    upstream_names: ClassVar[Mapping[str, str]] = {}
    one_network: ClassVar[bool] = True

    def on_images_of(self, other: Self) -> Self:
        """The same model on images of another's size, which has as many parts of each kind."""
        shape = dataclasses.replace(self.shape, image_size=other.shape.image_size)
        return dataclasses.replace(self, shape=shape)

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        """All parameters of the model as one NNX module."""
        return self.shape.build(rngs)

    def init(self, key: Array) -> functional.Params:
        """Fresh parameters, drawn from `key` (`jax.random.key(seed)`)."""
        return functional.create(self.build, key)

    def abstract_params(self) -> functional.Params:
        """Shapes and dtypes of the parameters."""
        return functional.abstract(self.build)

    def trainable(self, params: functional.Params) -> Any:
        """Tree of bools: parameters that are False get neither update nor weight decay."""
        return functional.map_paths(lambda path, _: path not in self.shape.frozen, params)

    def completed(self, params: functional.Params) -> functional.Params:
        """Parameters of the plain backbone, with fresh ones where the method has its own.

        The fresh ones are always the same, and a warning names them.
        """
        missing = sorted(set(self.abstract_params()) - set(params))
        if not missing:
            return params
        logger.warning(
            "these weights have no %s: fresh ones are added, train them.", " and no ".join(missing)
        )
        fresh = self.init(jax.random.key(0))
        return params | {name: fresh[name] for name in missing}

    def from_torch(self, state_dict: Mapping[str, Any]) -> functional.Params:
        """Parameters from other people's weights, such as `avit_jax.load_torch` returns.

        Positions are interpolated where the number of patches differs, and a classifier that is
        missing or tells another number of classes apart is replaced by a fresh one, with a warning.

        Args:
            state_dict: arrays of NumPy, JAX or torch under names of timm, DeiT or A-ViT, of Hugging
              Face's transformers, or of google-research/vision_transformer's `.npz` files.

        Raises:
            UserError: counts missing, unknown and misshapen names, or weights that are no finite
              floating-point numbers, with examples.
        """
        return self.from_timm(self.timm_named(state_dict))

    def timm_named(self, state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Other people's weights under the one set of names by which all are read, timm's."""
        wanted = names.wanted(self.abstract_params(), self.shape, self.upstream_names)
        return spelling.timm_named(state_dict, num_heads=self.shape.num_heads, wanted=wanted)

    def from_timm(self, state_dict: Mapping[str, np.ndarray]) -> functional.Params:
        """Parameters from what `timm_named` returns; see `from_torch`."""
        return self._named(state_dict, self.build)

    def _named(
        self, state_dict: Mapping[str, np.ndarray], build: functional.Build
    ) -> functional.Params:
        """What `build` makes, with upstream's arrays."""
        expected = functional.abstract(build)
        refuse_unusable(state_dict, names.wanted(expected, self.shape, self.upstream_names))
        fitted = fit(state_dict, self.shape)
        return names.from_torch(fitted, self.shape, expected, self.upstream_names)

    def to_torch(self, params: functional.Params, *, layout: str = "timm") -> dict[str, np.ndarray]:
        """The inverse of `from_torch`, bit for bit.

        Args:
            params: of this model.
            layout: whose names: "timm" (DeiT's and A-ViT's, too), "transformers" (Hugging Face's,
              as `from_pretrained` reads them in any version) or "transformers5" (as the modules of
              version 5 are called, for `load_state_dict`).

        Raises:
            UserError: an unknown layout, or a model that it has no names for.
        """
        if layout in transformers_names.LAYOUTS:
            transformers_names.refuse_other_tokens(self.shape)
        return spelling.in_layout(self.to_timm(params), layout)

    def to_timm(self, params: functional.Params) -> dict[str, np.ndarray]:
        """The inverse of `from_timm`, bit for bit."""
        return names.to_torch(params, self.shape, self.upstream_names)

    def num_params(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.abstract_params()))
