"""AdaViT: policies over tokens, heads and halves of blocks (Meng et al., arXiv 2111.15668)."""

from avit_jax.methods.adavit.model import Model
from avit_jax.methods.adavit.named import families
from avit_jax.methods.adavit.settings import Settings

__all__ = ["Model", "Settings", "families"]
