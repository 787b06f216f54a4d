"""A-ViT-T from scratch on Imagenette at 128 px; `deit_tiny_imagenette.py` is its dense twin.

    python -m avit_jax.main --config configs/avit_tiny_imagenette.py --config.data.dir DIR

`DIR` (or `TFDS_DATA_DIR`) holds `imagenette/160px-v2`, prepared once with
`python -m avit_jax.data.prepare imagenette/160px-v2 --data_dir DIR`.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(
        model="avit_tiny_patch16_224",
        method={
            "gate_scale": 10.0,
            "gate_center": 20.0,
            "ponder_weight": 3e-3,
            "kl_reading": "halting",
            "prior": "gaussian",
            "prior_weight": 0.5,
            "target_depth": 8.0,
            "scale": 3.0,
            "dense_until": 0.3,
            "ramp": 0.2,
        },
    )
    config.model.update(num_classes=10, image_size=128)
    config.data.name = "imagenette/160px-v2"
    config.data.augment.update(min_scale=0.35)
    config.train.update(batch_size=64, epochs=7.0)
    config.optim.update(
        learning_rate=1e-3, reference_batch_size=64, warmup=0.1, weight_decay=0.05, clip_norm=1.0
    )
    config.eval.update(every=1.0, batch_size=128)
    config.log.every = 20
    config.dense_twin = "runs/deit_tiny_imagenette"
    return configs.debug(config) if variant.debug else config
