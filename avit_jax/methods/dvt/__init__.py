"""DVT: a cascade that stops as soon as it is sure (Wang et al., arXiv 2105.15075)."""

from avit_jax.methods.dvt.model import Model
from avit_jax.methods.dvt.named import families
from avit_jax.methods.dvt.settings import Settings

__all__ = ["Model", "Settings", "families"]
