"""A-ViT on a folder of your own photographs, from DeiT's published weights.

    python -m avit_jax.main --config configs/finetune.py --config.data.dir photos \
        --config.init.weights hf://timm/deit_tiny_patch16_224.fb_in1k --workdir runs/photos

`photos/CLASS/*` are the images, of which a fifth of each class is held out and evaluated on, or
`photos/train/CLASS/*` and `photos/val/CLASS/*`. `pip install -e '.[hub]'` fetches the weights; the
path of a downloaded file does as well, in timm's or Hugging Face's names.
`configs/finetune.py:small` is A-ViT-S, which takes `hf://timm/deit_small_patch16_224.fb_in1k`.

The recipe suits some hundred images: the patch embedding is frozen, early layers move less than
late ones, and a moving average of the weights is what is used. What it was measured to do, its time
on a CPU and its limits: docs/finetune.md. Gates (10/30, and 10/75 for S), ponder weight and prior
are those that DeiT is taught to halt with (arXiv 2112.07658 and its repository's README).
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg, small=False)
    size, gate_center = ("small", 75.0) if variant.small else ("tiny", 30.0)
    config = configs.base(
        model=f"avit_{size}_patch16_224",
        method={"gate_center": gate_center, "target_depth": 9.0},
    )
    config.model.num_classes = configs.ClassesOfFolder(config.data, otherwise=1000)
    recipes.few_photographs(config, learning_rate=1e-3)
    return configs.debug(config) if variant.debug else config
