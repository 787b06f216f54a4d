"""Adaptive-compute vision transformers in JAX: models that spend work where an image needs it."""

from avit_jax.pretrained.torch_writer import save_torch
from avit_jax.pretrained.weights import load_torch
from avit_jax.types import Gates, Output, Usage
from avit_jax.version import __version__
from avit_jax.zoo import create_model, list_models

__all__ = [
    "Gates",
    "Output",
    "Usage",
    "__version__",
    "create_model",
    "list_models",
    "load_torch",
    "save_torch",
]
