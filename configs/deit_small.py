"""DeiT-S on ImageNet-1K: the dense baseline, trained from scratch.

    python -m avit_jax.main --config configs/deit_small.py --config.data.dir DIR

With `--mode eval --config.init.weights hf://timm/deit_small_patch16_224.fb_in1k` it evaluates the
published weights instead.

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with
`python -m avit_jax.data.prepare imagenet2012 --data_dir DIR`. Hyperparameters: DeiT's Table 9
(arXiv 2012.12877), without RandAugment, random erasing and repeated augmentation, which this
trainer does not have; so expect somewhat less than the published 79.9 top-1.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(model="deit_small_patch16_224")
    config.train.update(batch_size=1024, epochs=300.0, ema_decay=0.99996)
    config.optim.update(learning_rate=5e-4, warmup=5 / 300, weight_decay=0.05)
    config.data.mix.update(mixup=0.8, cutmix=1.0)
    config.model.update(drop_path_rate=0.1, dtype="bfloat16")
    return configs.debug(config) if variant.debug else config
