"""A-ViT-T on ImageNet-1K: fine-tuning DeiT-T to halt, by the published command.

    python -m avit_jax.main --config configs/avit_tiny.py --config.data.dir DIR \
        --config.init.weights hf://timm/deit_tiny_patch16_224.fb_in1k

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with `python -m avit_jax.data.prepare
imagenet2012 --data_dir DIR`. The weights are DeiT's own (`pip install -e '.[hub]'`; the path of a
downloaded file does as well); `--config.init.workdir runs/deit_tiny` starts from a run of
`configs/deit_tiny.py` instead. The gate 10/30 is made for such pretrained weights; on random ones
(`--config.init.scratch=True`) it collapses (`configs/avit_digits.py` shows how to start from
scratch).

The command is the one in the README of A-ViT's repository (arXiv 2112.07658): four GPUs with 128
images each, `--lr 0.0005`, which its code multiplies by 512 / 512, ponder weight 5e-4, prior weight
1e-3, 100 epochs of DeiT's recipe, 5 of them warm-up. The published prior is no distribution (it
sums to 3.26), ours is; `--config.method.prior_compat nvlabs --config.method.target_depth 8` has
theirs. Published: 71.4 % top-1 at 0.8 GMACs.

`configs/avit_tiny.py:light` is what this file was before: batches of 1,024, images that are
cropped, flipped and mixed only.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg, light=False)
    config = configs.base(
        model="avit_tiny_patch16_224",
        method={
            "gate_center": 30.0,
            # The published code centres its prior on layer 9 of 12 (index 8 counted from 0).
            "target_depth": 9.0,
        },
    )
    if variant.light:
        recipes.imagenet_fine_tuning(config, learning_rate=5e-4)
    else:
        recipes.avit_published(config, batch_size=512, learning_rate=5e-4)
    return configs.debug(config) if variant.debug else config
