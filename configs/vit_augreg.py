"""AugReg's vision transformers on ImageNet-1K: the published weights, evaluated and used.

    python -m avit_jax.main --config configs/vit_augreg.py --mode eval --config.data.dir DIR

`configs/vit_augreg.py:small`, `:base` and `:large` are the other sizes (arXiv 2106.10270). `DIR`
(or `TFDS_DATA_DIR`) holds `imagenet2012`, prepared once with
`python -m avit_jax.data.prepare imagenet2012 --data_dir DIR`; `pip install -e '.[hub]'` fetches the
weights, or `--config.init.weights` names a downloaded file. Crop and accuracy to expect:
docs/models.md. For prediction, conversion, or a start for configs of your own; no recipe for
training these has been tried here.
"""

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.errors import UserError
from avit_jax.zoo import published_weights

SIZES = ("small", "base", "large")


def get_config(arg: str | None = None) -> ConfigDict:
    """The experiment; see the module's docstring."""
    variant = configs.parse_arg(arg, **dict.fromkeys(SIZES, False))
    chosen = [size for size in SIZES if variant[size]]
    if len(chosen) > 1:
        raise UserError(f"the config has one size, not {' and '.join(chosen)}: write one of them.")
    name = f"vit_{(chosen or ['tiny'])[0]}_patch16_224"
    config = configs.base(model=name)
    published = published_weights(name)
    config.init.update(weights=published.weights, pixels=published.pixels)
    config.data.augment.crop_ratio = published.crop_ratio
    return configs.debug(config) if variant.debug else config
