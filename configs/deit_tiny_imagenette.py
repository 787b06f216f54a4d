"""DeiT-T from scratch on Imagenette at 128 px: the dense twin of `avit_tiny_imagenette.py`.

    python -m avit_jax.main --config configs/deit_tiny_imagenette.py --config.data.dir DIR

`DIR` (or `TFDS_DATA_DIR`) holds `imagenette/160px-v2`, prepared once with
`python -m avit_jax.data.prepare imagenette/160px-v2 --data_dir DIR`.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(model="deit_tiny_patch16_224")
    config.model.update(num_classes=10, image_size=128)
    config.data.name = "imagenette/160px-v2"
    config.data.augment.update(min_scale=0.35)
    config.train.update(batch_size=64, epochs=7.0)
    config.optim.update(
        learning_rate=1e-3, reference_batch_size=64, warmup=0.1, weight_decay=0.05, clip_norm=1.0
    )
    config.eval.update(every=1.0, batch_size=128)
    config.log.every = 20
    return configs.debug(config) if variant.debug else config
