"""Combinations of all choices that there are in a model, and what makes a tiny one of them."""

import dataclasses

import jax
import numpy as np
from hypothesis import strategies as st

import avit_jax
from avit_jax.methods.base import Model
from avit_jax.models.attention_kinds import KINDS
from avit_jax.models.norms import NORMS
from avit_jax.models.positions import ENCODINGS

SIZES = {"image_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3}
NAMES = {
    "avit": "avit_micro_patch4_32",
    "adavit": "adavit_deit_micro_patch4_32",
    "dense": "deit_micro_patch4_32",
}
OF_SHAPE = {
    "pos_embed": tuple(ENCODINGS),
    "pos_embed_prefix": (True, False),
    "norm": tuple(NORMS),
    "layer_scale": (None, 0.5),
    "num_class_tokens": (1, 2, 0),
    "class_token_merge": ("mean", "sum"),
    "num_registers": (0, 2),
    "pool": ("token", "avg"),
    "distilled": (False, True),
}
OF_ATTENTION = {"attention": tuple(KINDS), "qk_norm": (False, True)}
OF_METHOD = {
    "avit": {
        "spread": (
            "none", "nearby", "cross", "diagonal", "dilated", "square", "isotropic", "circle",
            "double_square",
        ),
        "spread_share": (1.0, 0.5),
        "eps": (0.01, 0.2),
        "layer_centers": (None, (0.5, -0.5, 0.2, 0.0)),
        "learn_gates": (False, True),
        "min_depth": (1, 2),
        "max_depth": (None, 3),
        "halt_from": (1, 2),
        "class_tokens_halt": (None, False, True),
        "registers_halt": (False, True),
        "kl_reading": ("paper", "halting"),
    },
    "adavit": {"keep_layers": (1,)},
    "dense": {},
}  # fmt: skip
# Fresh networks that skip some of it all: what runs in full would show nothing.
HALF_WAY = {
    "avit": {"gate_scale": 3.0, "gate_center": 0.0},
    "adavit": {"initial_logit": 0.02},
    "dense": {},
}
METHODS = ("avit", "avit", "avit", "adavit", "dense")


@dataclasses.dataclass(frozen=True)
class Combination:
    """A method, and what is chosen of its shape and its settings."""

    method: str
    shape: tuple[tuple[str, object], ...]
    settings: tuple[tuple[str, object], ...]

    def model(self) -> Model:
        """The tiny model; raises UserError where the choices contradict each other."""
        scale = HALF_WAY[self.method]
        return avit_jax.create_model(
            NAMES[self.method],
            num_classes=5,
            method={**scale, **dict(self.settings)},
            **{**SIZES, **dict(self.shape)},
        )


@st.composite
def combinations(draw) -> Combination:
    """Any combination whose choices do not contradict each other."""

    def one_of_each(choices):
        return {name: draw(st.sampled_from(values)) for name, values in choices.items()}

    method = draw(st.sampled_from(METHODS))
    shape = one_of_each(OF_SHAPE)
    if shape["pool"] == "avg":
        shape["distilled"] = False
    if not shape["num_class_tokens"] and (shape["pool"] != "avg" or method == "adavit"):
        shape["num_class_tokens"] = 1  # is read, by the classifier or by the policies
    if method != "adavit" and draw(st.integers(0, 7)) == 0:
        shape["mixer"] = "mlp"
        if shape["pos_embed"].startswith("rope"):
            shape["pos_embed"] = "none"
    else:
        shape |= one_of_each(OF_ATTENTION)
        if shape["attention"] == "cosine":
            shape["qk_norm"] = False
    settings = one_of_each(OF_METHOD[method])
    return Combination(method, tuple(shape.items()), tuple(settings.items()))


def images_of(count: int, seed: int = 0) -> np.ndarray:
    """Photograph-like noise `[count, 32, 32, 3]`: patches differ, and neighbours are alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    return (coarse + 0.5 * rng.normal(size=(count, 32, 32, 3))).astype(np.float32)


def start(model: Model, seed: int = 0):
    """Weights that are larger than fresh ones: attention looks somewhere, policies are sure."""
    params = jax.tree.map(lambda leaf: 1.5 * leaf, model.init(jax.random.key(seed)))
    if "policies" in params:
        params["policies"] = jax.tree.map(lambda leaf: 20 * leaf, params["policies"])
    return params
