"""DVT-DeiT-S on ImageNet-1K from scratch: exits at 7 x 7, 10 x 10 and 14 x 14 tokens.

    python -m avit_jax.main --config configs/dvt_deit_small.py --config.data.dir DIR

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with
`python -m avit_jax.data.prepare imagenet2012 --data_dir DIR`. The variant `:two` has exits at 7 x 7
and 14 x 14 tokens alone. With `--config.init.weights FILE` every exit starts from the weights of a
plain `deit_small_patch16_224`, or the whole cascade from those that DVT's authors publish.

All exits' losses count alike, as published (arXiv 2105.15075). The rest is DeiT's recipe; it
has not been run at this size.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg, two=False)
    config = configs.base(model="dvt_deit_small" + "_7_14" * variant.two)
    recipes.imagenet_from_scratch(config)
    return configs.debug(config) if variant.debug else config
