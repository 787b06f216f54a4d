"""AdaViT from scratch on the 1,797 handwritten digits in the package: minutes on a laptop.

    python -m avit_jax.main --config configs/adavit_digits.py

The variant `:debug` runs only a few steps.

Policies choose patches, heads and halves of blocks per image. As with A-ViT the model first learns
densely: targets stay at 1 and then fall to their values, or the policies would drop work before
anything is known about what it is good for.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(
        model="adavit_deit_micro_patch4_32",
        method={
            "heads_loss": {"target": 0.6},
            "layers_loss": {"target": 0.7},
            "tokens_loss": {"target": 0.6},
            "temperature": 5.0,
            "final_temperature": 1.0,
            "dense_until": 0.3,
            "ramp": 0.2,
        },
    )
    recipes.digits(config)
    config.dense_twin = "runs/deit_digits"
    return configs.debug(config) if variant.debug else config
