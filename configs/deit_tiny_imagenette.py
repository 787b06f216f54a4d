"""DeiT-T from scratch on Imagenette at 128 px: the dense twin of `avit_tiny_imagenette.py`.

    python -m avit_jax.main --config configs/deit_tiny_imagenette.py --config.data.dir DIR

`DIR` (or `TFDS_DATA_DIR`) holds `imagenette/160px-v2`, prepared once with
`python -m avit_jax.data.prepare imagenette/160px-v2 --data_dir DIR`. The variant `:recipe` does to
its images all that DeiT does: RandAugment, erasing, mixup and cutmix, repeated augmentation. It is
made for hundreds of epochs, and these are few.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg, recipe=False)
    config = configs.base(model="deit_tiny_patch16_224")
    recipes.imagenette(config, epochs=7.0, learning_rate=1e-3)
    if variant.recipe:
        recipes.deit_images(config, gpus=1)
    return configs.debug(config) if variant.debug else config
