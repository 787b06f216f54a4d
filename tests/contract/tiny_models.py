"""A tiny model of every method, with weights and images with which it runs some and skips some."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax import zoo
from avit_jax.benchmark import profiles
from avit_jax.methods.base import Model

NAMES = {zoo.named(name).name: name for name in avit_jax.list_models("*tiny_patch16_224")}
NAMES["random_drop"] = "tests.methods.random_drop:TINY"
CASCADES = ("dvt", "dvt of three exits", "dvt of one exit")
NAMES |= dict.fromkeys(CASCADES, "dvt_deit_tiny")
HALTING = {"dvt of avit": "dvt_avit_deit_tiny_128", "dvt of adavit": "dvt_adavit_deit_micro"}
NAMES |= HALTING
SLOW = (*CASCADES[1:], *HALTING)
# Networks take long to compile, and cascades of other numbers are made of the same parts.
PARAMS = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NAMES]
BATCH, SIZE, CLASSES = 3, 32, 7
TOKENS = 1 + (SIZE // 8) ** 2
# Blocks without decisions at the beginning, where the method has such; grids of a cascade, with
# confidences that some images of `start` reach.
SETTINGS = {
    "random_drop": {"whole_blocks": 1},
    "dvt": {"grids": (2, 4), "thresholds": (0.35,)},
    "dvt of three exits": {"grids": (2, 3, 4), "thresholds": (0.35, 0.28)},
    "dvt of one exit": {"grids": (4,)},
    "dvt of avit": {
        "grids": (2, 3, 4),
        "thresholds": (0.4, 0.3),
        "inner": {"gate_scale": 3.0, "gate_center": 0.5},
    },
    "dvt of adavit": {"grids": (2, 4), "thresholds": (0.3,), "inner": {"keep_layers": 1}},
}


class Case(NamedTuple):
    """A model that skips about half, and `model.apply`, compiled once for all tests."""

    model: Model
    params: dict
    images: np.ndarray
    apply: Callable


def tiny(method, /, **overrides):
    settings = {"method": SETTINGS.get(method, {})}
    sizes = {"image_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
    return avit_jax.create_model(
        NAMES[method], num_classes=CLASSES, **{**sizes, **settings, **overrides}
    )


def start(model):
    """Parameters and images with which a method runs some of everything, and leaves some out.

    A method whose fresh weights hardly skip anything, or everything at once, says in a synthetic
    profile with which ones it does.
    """
    if "half" in model.synthetic_profiles():
        return profiles.script(model, "half", BATCH)
    images = np.random.default_rng(1).normal(size=(BATCH, SIZE, SIZE, 3)).astype(np.float32)
    return model.init(jax.random.key(0)), images


@functools.cache
def case_of(method):
    model = tiny(method)
    apply = jax.jit(model.apply, static_argnames=("train", "execution", "features"))
    return Case(model, *start(model), apply)
