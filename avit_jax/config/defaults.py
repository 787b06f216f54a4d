"""Configs: defaults for every experiment, in one typed and locked `ConfigDict`.

A config file calls `base(model=...)`, changes what its experiment changes, and returns the result.
Every value can be changed on the command line (`--config.optim.learning_rate 1e-3`); types are
checked, and a key that does not exist is an error.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from avit_jax import zoo
from avit_jax.config.checks import validate as validate  # belongs to a config for its callers
from avit_jax.config.saved import differences as differences
from avit_jax.config.saved import from_json as from_json
from avit_jax.config.saved import plain
from avit_jax.config.saved import read as read
from avit_jax.config.saved import to_json as to_json
from avit_jax.data.augment import Augment
from avit_jax.data.mix import Mix
from avit_jax.errors import UserError
from avit_jax.losses.distillation import Distillation
from avit_jax.methods.base import Model


def base(*, model: str, method: Mapping[str, Any] | None = None) -> ConfigDict:
    """All settings with their defaults, for a named model; `method` changes the method's own."""
    created = zoo.create_model(model, method=method)
    config = ConfigDict()
    config.seed = 0
    config.model = ConfigDict({"name": model, **_typed(created.shape)})
    config.method = ConfigDict(_typed(created.settings))
    config.init = ConfigDict(
        {
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
        }
    )
    config.teacher = ConfigDict(
        {
            # A trained dense model to learn from beside the labels, one of the two at most, given
            # as in `init`. Nothing is learnt from a teacher where both are unset.
            "workdir": placeholder(str),
            "weights": placeholder(str),
            "pixels": placeholder(str),
            # Which model `weights` are of, by its name; this one's backbone where unset.
            "model": placeholder(str),
            # Weights of what the student is held to, see distillation.py.
            **dataclasses.asdict(Distillation()),
        }
    )
    config.data = ConfigDict(
        {
            "name": "imagenet2012",
            "dir": placeholder(str),  # or the environment variable TFDS_DATA_DIR
            "train_split": "train",
            "eval_split": "validation",
            "workers": 0,  # processes that decode; 0 decodes in threads of this process
            "max_bad_share": 0.01,  # unreadable examples, as a share of those seen, that end a run
            "augment": ConfigDict(dataclasses.asdict(Augment())),
            "mix": ConfigDict(dataclasses.asdict(Mix())),
        }
    )
    config.train = ConfigDict(
        {
            "batch_size": 1024,  # images per step, over all devices and processes
            "epochs": 100.0,
            "steps": placeholder(int),  # instead of epochs
            "accumulation": 1,  # microbatches per step; penalties are means over microbatches
            "label_smoothing": 0.1,
            "ema_decay": 0.0,  # 0: no moving average of the parameters
            "on_nonfinite": "stop",  # or "rollback": back to the last checkpoint, skip the step
            "max_rollbacks": 3,
        }
    )
    config.optim = ConfigDict(
        {
            "learning_rate": 5e-4,
            "reference_batch_size": 512,  # the learning rate is scaled by batch_size / this
            "warmup": 0.05,  # share of the training
            "min_learning_rate": 0.01,  # share of the peak
            "weight_decay": 0.05,
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "clip_norm": 0.0,  # 0: no clipping
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1})
    config.eval = ConfigDict(
        {
            "batch_size": 256,
            "every": 5.0,  # epochs; also saves a checkpoint. The last step always does both
            "weights": "auto",  # "auto": EMA where there is one; "ema"; "raw". Of files too
        }
    )
    config.inference = ConfigDict(
        {
            "batch_size": 32,  # images that --mode predict and benchmark put through together
            # "auto": the fastest exact one that --mode calibrate found, else compact; or
            # "compact", "masked", "dense", "capped".
            "execution": "auto",
            # Static sizes of the program, see inference/plan.py; those of --mode calibrate, or
            # sensible ones, where unset.
            "images": placeholder(int),
            "row_sizes": placeholder(tuple),
            "attention_images": placeholder(int),
            "lengths": placeholder(tuple),
            "dense_images": placeholder(int),
            "fused_attention": placeholder(bool),  # cuDNN's kernel: NVIDIA GPUs, bfloat16
            "capacities": placeholder(tuple),  # places in each layer, for execution "capped"
        }
    )
    config.benchmark = ConfigDict(
        {
            "batch_sizes": (1, 16, 32, 64),
            "image_sizes": placeholder(tuple),  # the model's own where unset
            "dtypes": placeholder(tuple),  # the model's own where unset
            # Synthetic: paper, half, none; real: this run's own. Unset: paper and half where the
            # model has them, else real.
            "profiles": placeholder(tuple),
            "executions": ("dense", "masked", "compact", "capped"),
            "turns": 9,
            "peers": placeholder(tuple),  # of PyTorch, where it is installed: eager, compile
        }
    )
    config.checkpoint = ConfigDict({"every": 1.0, "keep": 2})  # epochs; number kept
    config.log = ConfigDict({"every": 50, "tensorboard": True})  # steps
    config.dense_twin = placeholder(str)  # workdir of a dense run to set beside the results
    return config.lock()


def _typed(options: Any) -> dict[str, Any]:
    """The fields of a dataclass as values of a config, which keep the types of their annotations.

    A field that may be `None` takes values of its other type later; one that may be text or a
    structure (a depth prior) takes any value, and its dataclass checks it.
    """
    values = plain(dataclasses.asdict(options))
    for field in dataclasses.fields(options):
        if not field.metadata.get("config", True):
            del values[field.name]
    hints = typing.get_type_hints(type(options))
    for name, annotation in ((name, hints[name]) for name in values):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not types.NoneType]
        if isinstance(annotation, types.UnionType):
            kind = kinds[0] if len(kinds) == 1 else object
            values[name] = FieldReference(values[name], field_type=kind)
    return values


def parse_arg(arg: str | None, **flags: bool) -> ConfigDict:
    """The part behind the colon of `--config file.py:debug,other` as a dict of switches.

    Args:
        arg: the text, or `None`.
        **flags: valid names and their defaults.

    Raises:
        UserError: an unknown name.
    """
    switches = ConfigDict({"debug": False, **flags})
    for name in filter(None, (arg or "").split(",")):
        if name not in switches:
            raise UserError(
                f"the config has no variant {name!r}: write one of {', '.join(switches)} "
                "behind the colon, or nothing."
            )
        switches[name] = True
    return switches


def debug(config: ConfigDict) -> ConfigDict:
    """The same experiment cut down to seconds on a laptop, once compiled.

    At most three blocks of at most DeiT-T's width, heads as wide as they were, on the packaged
    digits at 32 px.
    """
    config.model.update(depth=min(config.model.depth, 3), image_size=32, num_classes=10)
    head = config.model.embed_dim // config.model.num_heads
    heads = min(config.model.num_heads, max(1, 192 // head))
    config.model.update(embed_dim=head * heads, num_heads=heads)
    if "patch_size" in config.model:
        config.model.patch_size = min(config.model.patch_size, 8)
    config.data.update(name="digits", dir=None, train_split="train", eval_split="validation")
    config.data.workers = 0
    config.train.update(batch_size=16, steps=8, accumulation=1)
    config.eval.batch_size = 128
    config.init.update(scratch=True, workdir=None, weights=None, pixels=None)
    config.teacher.update(workdir=None, weights=None, pixels=None, model=None)
    config.teacher.update(dataclasses.asdict(Distillation()))
    config.log.every = 2
    return config


def make_model(config: ConfigDict) -> Model:
    """The model that a config describes.

    Raises:
        UserError: values that contradict each other.
    """
    overrides = config.model.to_dict()
    return zoo.create_model(
        overrides.pop("name"), method=plain(config.method.to_dict()), **overrides
    )
