"""A-ViT's halting on T2T-ViT-14, ImageNet-1K: fine-tuning its weights to halt.

    python -m avit_jax.main --config configs/avit_t2t_14.py --config.data.dir DIR \
        --config.init.weights FILE

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with
`python -m avit_jax.data.prepare imagenet2012 --data_dir DIR`. `FILE` is the `.pth` that the authors
of T2T-ViT publish for `t2t_vit_14`.

Nobody has published halting on this backbone. Everything is as in `avit_small.py`, whose DeiT is as
wide, with the prior's centre as far from the end; it has not been run at this size.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(
        model="avit_t2t_vit_14",
        method={
            "gate_scale": 10.0,
            "gate_center": 75.0,
            "ponder_weight": 5e-4,
            "prior": "gaussian",
            "prior_weight": 1e-3,
            "target_depth": 10.5,
            "scale": 1.0,
        },
    )
    config.init.scratch = False
    config.train.update(batch_size=1024, epochs=100.0, ema_decay=0.99996)
    # The peak is learning_rate * batch_size / 512.
    config.optim.update(learning_rate=3e-4, warmup=5 / 100, weight_decay=0.05)
    config.data.mix.update(mixup=0.8, cutmix=1.0)
    config.model.update(drop_path_rate=0.1, dtype="bfloat16")
    return configs.debug(config) if variant.debug else config
