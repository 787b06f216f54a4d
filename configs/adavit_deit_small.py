"""AdaViT on DeiT-S, ImageNet-1K: fine-tuning DeiT's weights to choose patches, heads and halves.

    python -m avit_jax.main --config configs/adavit_deit_small.py --config.data.dir DIR \
        --config.init.weights hf://timm/deit_small_patch16_224.fb_in1k

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with
`python -m avit_jax.data.prepare imagenet2012 --data_dir DIR`. The weights are DeiT's own
(`pip install -e '.[hub]'`; the path of a downloaded file does as well);
`--config.init.workdir runs/deit_small` starts from a run of `configs/deit_small.py` instead.

The defaults of the method (thresholds, temperature 5, loss weights of 2, usage targets of 0.5) are
those of the published training script (arXiv 2111.15668 and its code). Batch, epochs and learning
rate follow this project's other fine-tuning recipes and have not been run at this size. Published:
77.3 % top-1 at 2.3 GMACs.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(model="adavit_deit_small_patch16_224")
    recipes.imagenet_fine_tuning(config, learning_rate=3e-4)
    return configs.debug(config) if variant.debug else config
