"""The dense twin of `avit_digits.py`: the same data and recipe, nothing halts.

    python -m avit_jax.main --config configs/deit_digits.py

Train it first, and the table of `avit_digits.py` shows its top-1 beside the adaptive one.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(model="deit_micro_patch4_32")
    config.model.num_classes = 10
    config.data.name = "digits"
    config.data.augment.update(kind="affine", rotation=0.2, zoom=0.12, shift=3.0, crop_ratio=1.0)
    config.train.update(batch_size=32, epochs=95.0, ema_decay=0.995)
    config.optim.update(learning_rate=2e-3, reference_batch_size=32, warmup=0.1, clip_norm=1.0)
    config.eval.every = 19.0
    config.checkpoint.every = 5.0
    config.log.every = 80
    return configs.debug(config) if variant.debug else config
