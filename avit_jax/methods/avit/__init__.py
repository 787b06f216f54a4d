"""A-ViT: every token decides by itself when it is done (Yin et al., arXiv 2112.07658)."""

from avit_jax.methods.avit.model import Model
from avit_jax.methods.avit.named import families
from avit_jax.methods.avit.settings import Settings

__all__ = ["Model", "Settings", "families"]
