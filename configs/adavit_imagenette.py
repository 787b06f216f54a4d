"""AdaViT-DeiT-T on Imagenette at 128 px, from the weights of `deit_tiny_imagenette.py`.

    python -m avit_jax.main --config configs/deit_tiny_imagenette.py --config.data.dir DIR
    python -m avit_jax.main --config configs/adavit_imagenette.py --config.data.dir DIR \
        --config.init.workdir runs/deit_tiny_imagenette

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
        model="adavit_deit_tiny_patch16_224",
        method={
            "heads_loss": {"target": 0.7},
            "layers_loss": {"target": 0.75},
            "tokens_loss": {"target": 0.6},
            "final_temperature": 1.0,
            "ramp": 0.4,
        },
    )
    config.init.scratch = False
    recipes.imagenette(config, epochs=5.0, learning_rate=3e-4)
    config.dense_twin = "runs/deit_tiny_imagenette"
    return configs.debug(config) if variant.debug else config
