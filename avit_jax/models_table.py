"""`docs/models.md`, from the models themselves: `python -m avit_jax.models_table > docs/models.md`.

Parameters and GMACs are computed here, accuracies are those of `published.py`.
"""

from __future__ import annotations

from avit_jax.pretrained.published import PUBLISHED, Published
from avit_jax.zoo import create_model, list_models

_HEAD = """\
# Models

Printed by `python -m avit_jax.models_table`. Parameters (1,000 classes) and GMACs (one multiply-add
counts once, attention included, nothing skipped) are counted in the models themselves. **Top-1** is
what the linked source reports for these weights on the validation images of ImageNet-1K, in
percent; none of it was measured with this code.

An address in the table starts or evaluates a model, here DeiT-T:

```
python -m avit_jax.main --config configs/deit_tiny.py --mode eval --config.data.dir DIR \\
    --config.init.weights hf://timm/deit_tiny_patch16_224.fb_in1k
```

`hf://` needs `pip install -e '.[hub]'` and the network; a downloaded file does as well. **Crop** is
the share of the resized image in the reported evaluation, `--config.data.augment.crop_ratio`. Where
**pixels** says symmetric, write `--config.init.pixels symmetric`; google-research's `.npz` files
are known by their names, and `configs/vit_augreg.py` (`:small`, `:base`, `:large`) says all of it.
An `avit` has the parameters of its `deit` or `t2t_vit` and takes their weights. An `adavit` has
policies besides: they are read from AdaViT's own files, and start fresh from weights without any.
All models take weights for other image sizes and other classes.
"""
_COLUMNS = (
    "model", "image", "parameters", "GMACs", "top-1", "weights", "crop", "pixels",
)  # fmt: skip
_FAMILIES = {
    "vit": "## ViT: dense ([arXiv 2010.11929](https://arxiv.org/abs/2010.11929)), "
    "weights of AugReg ([arXiv 2106.10270](https://arxiv.org/abs/2106.10270))",
    "deit": "## DeiT: dense ([arXiv 2012.12877](https://arxiv.org/abs/2012.12877))",
    "t2t_vit": "## T2T-ViT: dense ([arXiv 2101.11986](https://arxiv.org/abs/2101.11986))",
    "avit": "## A-ViT: tokens halt ([arXiv 2112.07658](https://arxiv.org/abs/2112.07658))",
    "adavit": "## AdaViT: policies over tokens, heads and halves "
    "([arXiv 2111.15668](https://arxiv.org/abs/2111.15668))",
}
_FOOT = """\
Models without weights in the table take those of another image size, and an `avit` or `adavit`
those of its `deit` or `t2t_vit`; where there are neither, training starts from random ones. The
micro ones are this project's own, for 32-pixel images such as the digits. The A-ViT weights are a
`.tar.gz` under CC BY-NC-SA 4.0: unpack it and give one of the `.pth` files. T2T-ViT's files hold a
moving average, which is taken as it is.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for family, title in _FAMILIES.items():
        rows = sorted(_counted(name) for name in list_models(f"{family}_*"))
        parts.append("\n".join([title, "", *_table(rows), ""]))
    sources = sorted({published.source for published in PUBLISHED.values()})
    links = [f"[{name}]: {address}\n" for name, address in sources]
    return "\n".join([*parts, _FOOT, "".join(links)])


def _counted(name: str) -> tuple[int, int, str, float]:
    """Image size, parameters, name and GMACs, in the order in which rows are sorted."""
    model = create_model(name)
    return model.shape.image_size, model.num_params(), name, model.dense_gmacs()


def _table(counted: list[tuple[int, int, str, float]]) -> list[str]:
    rule = ["---"] + ["--:"] * 4 + ["---", "--:", "---"]
    rows = [_COLUMNS, rule, *(_row(*counts, PUBLISHED.get(counts[2])) for counts in counted)]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _row(size: int, count: int, name: str, gmacs: float, published: Published | None) -> list[str]:
    row = [f"`{name}`", str(size), f"{count:,}", f"{gmacs:.4g}"]
    if published is None:
        return [*row, "", "", "", ""]
    source, _ = published.source
    cost = f" at {published.gmacs:g} GMACs" if published.gmacs else ""
    weights = f"`{published.weights}`" if published.loadable else f"download from [{source}]"
    return [
        *row,
        f"{published.top1:.1f}{cost} [{source}]",
        weights,
        f"{published.crop_ratio:.3g}",
        published.pixels,
    ]


if __name__ == "__main__":
    print(page(), end="")
