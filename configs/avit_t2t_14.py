"""A-ViT's halting on T2T-ViT-14, ImageNet-1K: fine-tuning its weights to halt.

    python -m avit_jax.main --config configs/avit_t2t_14.py --config.data.dir DIR \
        --config.init.weights FILE

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with
`python -m avit_jax.data.prepare imagenet2012 --data_dir DIR`. `FILE` is the `.pth` that the authors
of T2T-ViT publish for `t2t_vit_14`.

Nobody has published halting on this backbone. Everything is as in `avit_small.py`, whose DeiT is as
wide, with the prior's centre as far from the end; it has not been run at this size.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(
        model="avit_t2t_vit_14",
        method={
            "gate_center": 75.0,
            "target_depth": 10.5,
        },
    )
    recipes.imagenet_fine_tuning(config, learning_rate=3e-4)
    return configs.debug(config) if variant.debug else config
