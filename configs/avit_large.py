"""A-ViT-L on ImageNet-1K: fine-tuning ViT-L/16 to halt on a pod, with derived hyperparameters.

    python -m avit_jax.main --config configs/avit_large.py --config.data.dir DIR \
        --config.init.weights hf://timm/vit_large_patch16_224.augreg_in21k_ft_in1k \
        --config.mesh.fsdp 8

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with
`python -m avit_jax.data.prepare imagenet2012 --data_dir DIR`. The weights are AugReg's
(arXiv 2106.10270; `pip install -e '.[hub]'`; the path of a downloaded file does as well), which
expect their own range of pixels; `config.init.pixels` says so. What it needs on a machine is said
before one is rented: `--mode forecast --config.forecast.machine v5e:16x16`
(`docs/performance/forecast.md`).

Nothing is published for this size, and nobody has trained it here. Derived: gate and learning rate
of `configs/avit_base.py`, the rate halved as the width grows, and the prior centred as deep in 24
layers as the published one in 12. Watch `mean_depth` in the first epoch, and raise the gate's
centre if it falls below 8.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(
        model="avit_large_patch16_224",
        method={"gate_center": 75.0, "target_depth": 18.0},
    )
    recipes.imagenet_fine_tuning(config, learning_rate=1e-4)
    config.init.pixels = "symmetric"
    return configs.debug(config) if variant.debug else config
