"""A-ViT-S on ImageNet-1K: fine-tuning DeiT-S to halt, with the paper's hyperparameters.

    python -m avit_jax.main --config configs/avit_small.py --config.data.dir DIR \
        --config.init.weights hf://timm/deit_small_patch16_224.fb_in1k

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with
`python -m avit_jax.data.prepare imagenet2012 --data_dir DIR`. The weights are DeiT's own
(`pip install -e '.[hub]'`; the path of a downloaded file does as well);
`--config.init.workdir runs/deit_small` starts from a run of `configs/deit_small.py` instead. The
gate 10/75 is made for such pretrained weights; on random ones (`--config.init.scratch=True`) it
collapses (`configs/avit_digits.py` shows how to start from scratch).

Gate, learning rate, ponder weight 5e-4, prior weight 1e-3, 100 epochs, 5 of warm-up: the published
training lines (arXiv 2112.07658 and its repository's README). The published prior is no
distribution (it sums to 3.26), ours is; `--config.method.prior_compat nvlabs
--config.method.target_depth 8` has theirs. Published: 78.8 % top-1 at 3.6 GMACs.

`configs/avit_small.py:live` leaves tokens that have halted out of its steps (`train.rows`), which
costs less the more of them halt. It holds the prior against the distribution of halting itself
(`kl_reading = "halting"`) in place of the published mean scores, which halted tokens go on raising;
nobody has trained it on ImageNet yet.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg, live=False)
    config = configs.base(
        model="avit_small_patch16_224",
        method={
            "gate_center": 75.0,
            # The published code centres its prior on layer 9 of 12 (index 8 counted from 0).
            "target_depth": 9.0,
        },
    )
    recipes.imagenet_fine_tuning(config, learning_rate=3e-4)
    if variant.live:
        recipes.on_live_rows(config)
    return configs.debug(config) if variant.debug else config
