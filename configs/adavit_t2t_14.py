"""AdaViT on T2T-ViT-14, ImageNet-1K: fine-tuning its weights to choose tokens, heads and halves.

    python -m avit_jax.main --config configs/adavit_t2t_14.py --config.data.dir DIR \
        --config.init.weights FILE

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with
`python -m avit_jax.data.prepare imagenet2012 --data_dir DIR`. `FILE` is the `.pth` that the authors
of T2T-ViT publish for `t2t_vit_14`.

Thresholds, temperature 5, loss weights of 2 and usage targets of 0.5 are those of the published
training script (arXiv 2111.15668 and its code). Batch, epochs and learning rate follow this
project's other fine-tuning recipes and have not been run at this size. The paper
has no figures for 14 blocks; for 19 see `adavit_t2t_19.py`.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(
        model="adavit_t2t_vit_14",
        method={
            "heads_loss": {"weight": 2.0, "target": 0.5},
            "layers_loss": {"weight": 2.0, "target": 0.5},
            "tokens_loss": {"weight": 2.0, "target": 0.5},
            "temperature": 5.0,
        },
    )
    config.init.scratch = False
    config.train.update(batch_size=1024, epochs=100.0, ema_decay=0.99996)
    # The peak is learning_rate * batch_size / 512.
    config.optim.update(learning_rate=3e-4, warmup=5 / 100, weight_decay=0.05)
    config.data.mix.update(mixup=0.8, cutmix=1.0)
    config.model.update(drop_path_rate=0.1, dtype="bfloat16")
    return configs.debug(config) if variant.debug else config
