"""DVT from scratch on the 1,797 handwritten digits in the package: minutes on a laptop.

    python -m avit_jax.main --config configs/dvt_digits.py

The variant `:debug` runs only a few steps.

Exits look at 4 x 4, 6 x 6 and 8 x 8 patches. Training needs no threshold. Afterwards
`--config.method.thresholds "(0.95,0.9)"` lets images leave that are so sure, in every mode.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(model="dvt_deit_micro")
    recipes.digits(config)
    config.dense_twin = "runs/deit_digits"
    return configs.debug(config) if variant.debug else config
