"""`docs/models.md`, from the models themselves: `python -m avit_jax.models_table > docs/models.md`.

Parameters and GMACs are computed here, headings and accuracies are those of `zoo.families()`.
"""

from __future__ import annotations

from avit_jax.methods.base import Model
from avit_jax.models.family import Family, Published
from avit_jax.zoo import families

_HEAD = """\
# Models

Printed by `python -m avit_jax.models_table`. Parameters and GMACs (one multiply-add counts once,
attention included, nothing skipped) are counted in the models themselves, with 1,000 classes: the
ten of the digits make 0.01336 GMACs of 0.01341. All modes call this cost *dense*. **Top-1** is what
the linked source reports for these weights on the validation images of ImageNet-1K, in
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
A `dvt` is a cascade: it takes DVT's own weights, or those of its `deit` or `t2t_vit` for every
exit; its GMACs are those of all exits together. The exits of a `dvt_avit` are A-ViTs with the same
parameters, those of a `dvt_adavit` AdaViTs.
All models take weights for other image sizes and other classes. Where a row says *no classifier*,
the weights have none: a fresh one is added, to be trained.
"""
_COLUMNS = (
    "model", "image", "parameters", "GMACs", "top-1", "weights", "crop", "pixels",
)  # fmt: skip
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
    for family in families():
        parts.append("\n".join([f"## {family.heading}", "", *_table(family), ""]))
    published = (known for family in families() for known in family.published.values())
    sources = sorted({known.source for known in published})
    links = [f"[{name}]: {address}\n" for name, address in sources]
    return "\n".join([*parts, _FOOT, "".join(links)])


def _table(family: Family[Model]) -> list[str]:
    counted = sorted(
        (model.shape.image_size, model.num_params(), name, model.dense_gmacs())
        for name, model in family.members.items()
    )
    rule = ["---"] + ["--:"] * 4 + ["---", "--:", "---"]
    rows = [_COLUMNS, rule]
    rows += [_row(*counts, family.published.get(counts[2])) for counts in counted]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _row(size: int, count: int, name: str, gmacs: float, published: Published | None) -> list[str]:
    row = [f"`{name}`", str(size), f"{count:,}", f"{gmacs:.4g}"]
    if published is None:
        return [*row, "", "", "", ""]
    source, _ = published.source
    cost = f" at {published.gmacs:g} GMACs" if published.gmacs else ""
    top1 = "no classifier" if published.top1 is None else f"{published.top1:.1f}{cost}"
    weights = f"`{published.weights}`" if published.loadable else f"download from [{source}]"
    return [
        *row,
        f"{top1} [{source}]",
        weights,
        f"{published.crop_ratio:.3g}",
        published.pixels,
    ]


if __name__ == "__main__":
    print(page(), end="")
