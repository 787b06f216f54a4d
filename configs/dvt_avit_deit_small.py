"""DVT of A-ViT-Ss on ImageNet-1K: tokens halt inside of each exit, and images stop between exits.

    python -m avit_jax.main --config configs/dvt_avit_deit_small.py --config.data.dir DIR \
        --config.init.workdir runs/dvt_deit_small

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with
`python -m avit_jax.data.prepare imagenet2012 --data_dir DIR`. `runs/dvt_deit_small` is the run of
`dvt_deit_small.py`, whose parameters are the same; `--config.init.weights FILE` takes those that
DVT's authors publish, or those of a plain `deit_small_patch16_224` for every exit.

Tokens learn to halt as in `avit_small.py`: A-ViT's recipe for fine-tuning, on the sum of all exits'
losses. It has not been run at this size.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(model="dvt_avit_deit_small")
    recipes.imagenet_fine_tuning(config, learning_rate=3e-4)
    return configs.debug(config) if variant.debug else config
