"""AdaViT-DeiT-T on Imagenette at 128 px, from the weights of `deit_tiny_imagenette.py`.

    python -m avit_jax.main --config configs/deit_tiny_imagenette.py --config.data.dir DIR
    python -m avit_jax.main --config configs/adavit_imagenette.py --config.data.dir DIR \
        --config.init.workdir runs/deit_tiny_imagenette

`DIR` (or `TFDS_DATA_DIR`) holds `imagenette/160px-v2`, prepared once with
`python -m avit_jax.data.prepare imagenette/160px-v2 --data_dir DIR`.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(
        model="adavit_deit_tiny_patch16_224",
        method={
            "heads_loss": {"target": 0.7},
            "layers_loss": {"target": 0.75},
            "tokens_loss": {"target": 0.6},
            "final_temperature": 1.0,
            "ramp": 0.4,
        },
    )
    config.init.scratch = False
    config.model.update(num_classes=10, image_size=128)
    config.data.name = "imagenette/160px-v2"
    config.data.augment.update(min_scale=0.35)
    config.train.update(batch_size=64, epochs=5.0)
    config.optim.update(
        learning_rate=3e-4, reference_batch_size=64, warmup=0.1, weight_decay=0.05, clip_norm=1.0
    )
    config.eval.update(every=1.0, batch_size=128)
    config.log.every = 20
    config.dense_twin = "runs/deit_tiny_imagenette"
    return configs.debug(config) if variant.debug else config
