"""A-ViT-S on ImageNet-1K: fine-tuning DeiT-S to halt, by the published command.

    python -m avit_jax.main --config configs/avit_small.py --config.data.dir DIR \
        --config.init.weights hf://timm/deit_small_patch16_224.fb_in1k

`DIR` (or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with `python -m avit_jax.data.prepare
imagenet2012 --data_dir DIR`. The weights are DeiT's own (`pip install -e '.[hub]'`; the path of a
downloaded file does as well); `--config.init.workdir runs/deit_small` starts from a run of
`configs/deit_small.py` instead. The gate 10/75 is made for such pretrained weights; on random ones
(`--config.init.scratch=True`) it collapses (`:scratch` is for those).

The command is the one in the README of A-ViT's repository (arXiv 2112.07658): four GPUs with 96
images each, `--lr 0.0003`, which its code multiplies by 384 / 512, ponder weight 5e-4, prior weight
1e-3, 100 epochs of DeiT's recipe, 5 of them warm-up. The published prior is no distribution (it
sums to 3.26), ours is; `--config.method.prior_compat nvlabs --config.method.target_depth 8` has
theirs. Published: 78.8 % top-1 at 3.6 GMACs.

`configs/avit_small.py:light` is what this file was before: batches of 1,024, images that are
cropped, flipped and mixed only.

`configs/avit_small.py:live` leaves tokens that have halted out of its steps (`train.rows`), which
costs less the more of them halt. It holds the prior against the distribution of halting itself
(`kl_reading = "halting"`) in place of the published mean scores, which halted tokens go on raising.

`configs/avit_small.py:scratch` trains random weights for as long as `configs/deit_small.py`:
densely at first, then halting comes in gradually, with the settings that worked on Imagenette
(`configs/avit_tiny_imagenette.py`).

`configs/avit_small.py:distilled` starts from the distilled DeiT-S and learns from a teacher
besides:

    python -m avit_jax.main --config configs/avit_small.py:distilled --config.data.dir DIR \
        --config.init.weights hf://timm/deit_small_distilled_patch16_224.fb_in1k \
        --config.teacher.weights hf://timm/deit_base_distilled_patch16_224.fb_in1k \
        --config.teacher.model deit_base_distilled_patch16_224

The paper reports 80.7 % at 3.6 GMACs for a distilled A-ViT-S and not how it was trained. This is
the command above with DeiT's hard distillation: the distillation token's head learns the teacher's
first choice, the class token's the labels, and both tokens halt.

None of the last three has been trained on ImageNet yet.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.config import recipes
from avit_jax.errors import UserError


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg, light=False, live=False, scratch=False, distilled=False)
    if variant.light and variant.scratch:
        raise UserError("the config trains from scratch or is light: write one of the two.")
    method = {
        "gate_center": 75.0,
        # The published code centres its prior on layer 9 of 12 (index 8 counted from 0).
        "target_depth": 9.0,
    }
    if variant.scratch:
        method = recipes.halting_from_scratch(target_depth=8.0, scale=3.0)
    config = configs.base(
        model="avit_small" + "_distilled" * variant.distilled + "_patch16_224", method=method
    )
    if variant.scratch:
        recipes.imagenet_from_scratch(config)
    elif variant.light:
        recipes.imagenet_fine_tuning(config, learning_rate=3e-4)
    else:
        recipes.avit_published(config, batch_size=384, learning_rate=3e-4)
    if variant.live:
        recipes.on_live_rows(config)
    if variant.distilled:
        recipes.distilled(config)
    return configs.debug(config) if variant.debug else config
