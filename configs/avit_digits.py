"""A-ViT from scratch on the 1,797 handwritten digits in the package: minutes on a laptop.

    python -m avit_jax.main --config configs/avit_digits.py

Variants: `configs/avit_digits.py:ci` is a shortened run, `:debug` only a few steps, and `:live`
leaves tokens that have halted out of its steps (`train.rows`).

The gates of the papers are made for pretrained weights; from scratch they collapse to one depth. So
the model first learns densely, halting and its penalties then come in gradually, and the depth
prior is held against the distribution of halting itself (`kl_reading = "halting"`): the published
reading counts the scores of halted tokens too, and is content when all tokens halt in the first
two layers.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg, ci=False, live=False)
    config = configs.base(
        model="avit_micro_patch4_32",
        method=recipes.halting_from_scratch(target_depth=3.45, scale=1.5),
    )
    recipes.digits(config)
    config.dense_twin = "runs/deit_digits"
    if variant.live:
        recipes.on_live_rows(config)
    if variant.ci:
        config.train.epochs = 18.0
    return configs.debug(config) if variant.debug else config
