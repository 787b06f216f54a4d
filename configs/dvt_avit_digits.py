"""DVT of A-ViTs from scratch on the 1,797 handwritten digits in the package: minutes on a laptop.

    python -m avit_jax.main --config configs/dvt_avit_digits.py

The variant `:debug` runs only a few steps.

The exits are those of `dvt_digits.py`, and in each of them tokens halt with the gates and the prior
of `avit_digits.py`. Penalties of all exits are added up. Afterwards
`--config.method.thresholds "(0.95,0.9)"` lets images leave that are so sure, in every mode, and
`--config.method.inner.gate_center` moves how early tokens halt.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(
        model="dvt_avit_deit_micro",
        method={"inner": recipes.halting_from_scratch(target_depth=3.45, scale=1.5)},
    )
    recipes.digits(config)
    config.dense_twin = "runs/deit_digits"
    return configs.debug(config) if variant.debug else config
