"""A-ViT-B on ImageNet-1K: fine-tuning DeiT-B to halt, with derived hyperparameters.

    python -m avit_jax.main --config configs/avit_base.py --config.data.dir DIR \
        --config.init.weights hf://timm/deit_base_patch16_224.fb_in1k

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with
`python -m avit_jax.data.prepare imagenet2012 --data_dir DIR`. The weights are DeiT's own
(`pip install -e '.[hub]'`; the path of a downloaded file does as well);
`--config.init.workdir runs/deit_base` starts from a run of `configs/deit_base.py` instead. The
gate 10/75 is made for such pretrained weights; on random ones (`--config.init.scratch=True`) it
collapses (`configs/avit_digits.py` shows how to start from scratch).

Nothing is published for this size. Derived: the published gate moves from 30 to 75 as the width
doubles from 192 to 384, since channel 0 of a wider DeiT lies higher before it is trained to halt;
we keep 75 rather than extrapolate, because a centre that is too low halts everything at once while
one that is too high only costs epochs. The learning rate follows the step from T (5e-4) to S (3e-4)
down to 2e-4. Watch `mean_depth` in the first epoch, and raise the centre if it falls below 4.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg)
    config = configs.base(
        model="avit_base_patch16_224",
        method={
            "gate_center": 75.0,
            # The published code centres its prior on layer 9 of 12 (index 8 counted from 0).
            "target_depth": 9.0,
        },
    )
    recipes.imagenet_fine_tuning(config, learning_rate=2e-4)
    return configs.debug(config) if variant.debug else config
