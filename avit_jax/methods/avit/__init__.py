"""A-ViT: every token decides by itself when it is done (Yin et al., arXiv 2112.07658)."""

from avit_jax.methods.avit.model import Model, Settings
from avit_jax.methods.avit.named import families

__all__ = ["Model", "Settings", "families"]
