"""The dense twin of `avit_digits.py`: the same data and recipe, nothing halts.

    python -m avit_jax.main --config configs/deit_digits.py

Train it first, and the table of `avit_digits.py` shows its top-1 beside the adaptive one.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(model="deit_micro_patch4_32")
    recipes.digits(config)
    return configs.debug(config) if variant.debug else config
