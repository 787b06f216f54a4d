"""A cascade trained on ImageNet taught CIFAR-10 at 224 px; `:cifar100` is CIFAR-100.

    python -m avit_jax.main --config configs/dvt_cifar.py --config.data.dir DIR \
        --config.init.workdir runs/dvt_t2t_12

`DIR` (or `TFDS_DATA_DIR`) holds `cifar10` (or `cifar100`), prepared once with
`python -m avit_jax.data.prepare cifar10 --data_dir DIR`. `runs/dvt_t2t_12` is the run of
`dvt_t2t_12.py`; `--config.init.weights FILE` takes a file of DVT's authors instead. The variant
`:deit` is DVT-DeiT-S.

Images are enlarged to 224 px and all exits fine-tuned, as published (arXiv 2105.15075, section 4).
Optimiser and rate are this project's for fine-tuning and have not been run at this size.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg, cifar100=False, deit=False)
    config = configs.base(model="dvt_deit_small" if variant.deit else "dvt_t2t_vit_12")
    classes = 100 if variant.cifar100 else 10
    recipes.cifar(config, classes=classes)
    return configs.debug(config) if variant.debug else config
