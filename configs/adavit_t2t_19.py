"""AdaViT on T2T-ViT-19, ImageNet-1K: fine-tuning its weights to choose tokens, heads and halves.

    python -m avit_jax.main --config configs/adavit_t2t_19.py --config.data.dir DIR \
        --config.init.weights FILE

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with
`python -m avit_jax.data.prepare imagenet2012 --data_dir DIR`. `FILE` is the `.pth` that the authors
of T2T-ViT publish for `t2t_vit_19`.

The defaults of the method (thresholds, temperature 5, loss weights of 2, usage targets of 0.5) are
those of the published training script (arXiv 2111.15668 and its code). Batch, epochs and learning
rate follow this project's other fine-tuning recipes and have not been run at this size. Published:
81.1 % top-1 at 3.9 GMACs.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(model="adavit_t2t_vit_19")
    recipes.imagenet_fine_tuning(config, learning_rate=3e-4)
    return configs.debug(config) if variant.debug else config
