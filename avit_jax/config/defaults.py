"""Configs: defaults for every experiment, in one typed and locked `ConfigDict`.

A config file calls `base(model=...)`, changes what its experiment changes, and returns the result.
Every value can be changed on the command line (`--config.optim.learning_rate 1e-3`); types are
checked, and a key that does not exist is an error.

A new setting is one line here (or one field of the dataclass that it belongs to). If its default
changes what older runs did, or if it may change between two parts of one run, that line says so:
see `settings.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from avit_jax import zoo
from avit_jax.config import settings
from avit_jax.config.settings import changeable, of_dataclass
from avit_jax.data.augment import Augment
from avit_jax.data.mix import Mix
from avit_jax.errors import UserError
from avit_jax.losses.distillation import Distillation
from avit_jax.methods.base import Model


def base(*, model: str, method: Mapping[str, Any] | None = None) -> ConfigDict:
    """All settings with their defaults, for a named model; `method` changes the method's own."""
    created = zoo.create_model(model, method=method)
    return ConfigDict(settings.defaults(_of_model(model, created) | _of_every_model())).lock()


def make_model(config: ConfigDict) -> Model:
    """The model that a config describes.

    Raises:
        UserError: values that contradict each other.
    """
    overrides = config.model.to_dict()
    return zoo.create_model(
        overrides.pop("name"), method=settings.plain(config.method.to_dict()), **overrides
    )


def declared(name: Any) -> dict[str, Any]:
    """All settings of a named model's configs; without those of the model if there is no such."""
    try:
        return _of_model(name, zoo.create_model(str(name))) | _of_every_model()
    except UserError:
        return _of_every_model()


def _of_model(name: str, created: Model) -> dict[str, Any]:
    return {
        "model": {"name": name, **of_dataclass(created.shape)},
        "method": of_dataclass(created.settings),
    }


def _of_every_model() -> dict[str, Any]:
    """Made anew for each config, for a config changes its placeholders."""
    return {
        "seed": 0,
        "init": {
            # What to start from, one of the two at most: a workdir of this project (its newest
            # checkpoint), or a weight file of somebody else (.pth, .safetensors, .npz, or
            # hf://owner/name). A training takes the EMA in either, if there is one; other modes
            # take what `eval.weights` says.
            "workdir": placeholder(str),
            "weights": placeholder(str),
            # What `weights` expects of pixels, see pretrained/pixels.py: "imagenet" (DeiT, timm's
            # rule) or "symmetric" (AugReg). Unset: symmetric for google-research's .npz files.
            "pixels": placeholder(str),
            # Whether training may start from random weights; False in recipes for fine-tuning.
            "scratch": True,
        },
        "teacher": {
            # A trained dense model to learn from beside the labels, one of the two at most, given
            # as in `init`. Nothing is learnt from a teacher where both are unset.
            "workdir": placeholder(str),
            "weights": placeholder(str),
            "pixels": placeholder(str),
            # Which model `weights` are of, by its name; this one's backbone where unset.
            "model": placeholder(str),
            # Weights of what the student is held to, see losses/distillation.py.
            **of_dataclass(Distillation()),
        },
        "data": {
            "name": "imagenet2012",
            "dir": changeable(placeholder(str)),  # or the environment variable TFDS_DATA_DIR
            "train_split": "train",
            "eval_split": "validation",
            # Processes that decode; 0 decodes in threads of this process.
            "workers": changeable(0),
            # Unreadable examples, as a share of those seen, that end a run.
            "max_bad_share": changeable(0.01),
            "augment": of_dataclass(Augment()),
            "mix": of_dataclass(Mix()),
        },
        "train": {
            "batch_size": 1024,  # images per step, over all devices and processes
            "epochs": 100.0,
            "steps": placeholder(int),  # instead of epochs
            "accumulation": 1,  # microbatches per step; penalties are means over microbatches
            "label_smoothing": 0.1,
            "ema_decay": 0.0,  # 0: no moving average of the parameters
            # Or "rollback": back to the last checkpoint, skip the step.
            "on_nonfinite": changeable("stop"),
            "max_rollbacks": changeable(3),
        },
        "optim": {
            "learning_rate": 5e-4,
            "reference_batch_size": 512,  # the learning rate is scaled by batch_size / this
            "warmup": 0.05,  # share of the training
            "min_learning_rate": 0.01,  # share of the peak
            "weight_decay": 0.05,
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "clip_norm": 0.0,  # 0: no clipping
        },
        "mesh": {"data": -1, "fsdp": 1},
        "eval": {
            "batch_size": changeable(256),
            # Epochs; also saves a checkpoint. The last step always does both.
            "every": changeable(5.0),
            "weights": "auto",  # "auto": EMA where there is one; "ema"; "raw". Of files too
        },
        "inference": changeable(
            {
                "batch_size": 32,  # images that --mode predict and benchmark put through together
                # "auto": the fastest exact one that --mode calibrate found, else compact on CPUs
                # and static elsewhere; or "compact", "static", "masked", "dense", "capped".
                "execution": "auto",
                # Static sizes of the program, see execution/plan.py; those of --mode calibrate, or
                # sensible ones, where unset.
                "images": placeholder(int),
                "row_sizes": placeholder(tuple),
                "attention_images": placeholder(int),
                "lengths": placeholder(tuple),
                "dense_images": placeholder(int),
                "fused_attention": placeholder(bool),  # cuDNN's kernel, on GPUs: bfloat16
                "unrolled": placeholder(bool),  # layers one by one instead of a loop: for GPUs
                "capacities": placeholder(tuple),  # places in each layer, for execution "capped"
                "static_rows": placeholder(tuple),  # rows in each layer, for execution "static"
            }
        ),
        "benchmark": changeable(
            {
                "batch_sizes": (1, 16, 32, 64),
                "image_sizes": placeholder(tuple),  # the model's own where unset
                "dtypes": placeholder(tuple),  # the model's own where unset
                # Synthetic: paper, half, none; real: this run's own. Unset: paper and half where
                # the model has them, else real.
                "profiles": placeholder(tuple),
                "executions": ("dense", "masked", "compact", "static", "capped"),
                "turns": 9,
                "peers": placeholder(tuple),  # of PyTorch, where it is installed: eager, compile
            }
        ),
        "checkpoint": changeable({"every": 1.0, "keep": 2}),  # epochs; number kept
        "log": {"every": 50, "tensorboard": changeable(True)},  # steps
        # Workdir of a dense run to set beside the results.
        "dense_twin": changeable(placeholder(str)),
    }
