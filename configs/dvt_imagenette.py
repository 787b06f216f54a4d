"""DVT-DeiT-T from scratch on Imagenette at 128 px, exits at 4 x 4, 6 x 6 and 8 x 8 patches.

    python -m avit_jax.main --config configs/dvt_imagenette.py --config.data.dir DIR

`DIR` (or `TFDS_DATA_DIR`) holds `imagenette/160px-v2`, prepared once with
`python -m avit_jax.data.prepare imagenette/160px-v2 --data_dir DIR`.

With `--config.init.workdir runs/deit_tiny_imagenette --config.optim.learning_rate 3e-4` every exit
starts from the weights of `deit_tiny_imagenette.py` instead.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(model="dvt_deit_tiny_128")
    recipes.imagenette(config, epochs=7.0, learning_rate=1e-3)
    config.dense_twin = "runs/deit_tiny_imagenette"
    return configs.debug(config) if variant.debug else config
