"""DeiT-B on ImageNet-1K: the dense baseline, trained from scratch.

    python -m avit_jax.main --config configs/deit_base.py --config.data.dir DIR

With `--mode eval --config.init.weights hf://timm/deit_base_patch16_224.fb_in1k` it evaluates the
published weights instead.

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with `python -m avit_jax.data.prepare
imagenet2012 --data_dir DIR`. The recipe is DeiT's (arXiv 2012.12877, Table 9, and its code, whose
10 cool-down epochs its own loop leaves out: `--config.train.epochs 300
--config.optim.cooldown_epochs 0`). Its published top-1, 81.8 %, is that of the weights themselves,
not of their average: `--config.eval.weights raw`. Nobody has run this file to the end.

`configs/deit_base.py:distilled` has a distillation token, and learns the first choice of a teacher
that you name, as hard distillation in DeiT:

    python -m avit_jax.main --config configs/deit_base.py:distilled --config.data.dir DIR \
        --config.teacher.workdir RUN

or any weight file, `--config.teacher.weights FILE --config.teacher.model NAME`. DeiT's teacher, a
RegNetY-16GF with which it reports 83.4 %, is a convolutional network and none of the models here.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg, distilled=False)
    config = configs.base(model="deit_base" + "_distilled" * variant.distilled + "_patch16_224")
    recipes.imagenet_from_scratch(config)
    if variant.distilled:
        recipes.distilled(config)
    return configs.debug(config) if variant.debug else config
