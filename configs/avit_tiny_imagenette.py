"""A-ViT-T from scratch on Imagenette at 128 px; `deit_tiny_imagenette.py` is its dense twin.

    python -m avit_jax.main --config configs/avit_tiny_imagenette.py --config.data.dir DIR

`DIR` (or `TFDS_DATA_DIR`) holds `imagenette/160px-v2`, prepared once with
`python -m avit_jax.data.prepare imagenette/160px-v2 --data_dir DIR`.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(
        model="avit_tiny_patch16_224",
        method=recipes.halting_from_scratch(target_depth=8.0, scale=3.0),
    )
    recipes.imagenette(config, epochs=7.0, learning_rate=1e-3)
    config.dense_twin = "runs/deit_tiny_imagenette"
    return configs.debug(config) if variant.debug else config
