"""Variants of one config file, such as `--config file.py:debug`."""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from avit_jax.errors import UserError
from avit_jax.losses.distillation import Distillation


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
    if "grids" in config.method:  # of a cascade, which end with the backbone's own
        finest = 32 // config.model.get("patch_size", 16)
        exits = min(finest, len(config.method.grids))
        config.method.grids = tuple(range(finest - exits + 1, finest + 1))
    config.data.update(name="digits", dir=None, train_split="train", eval_split="validation")
    config.data.workers, config.data.mix.group = 0, 0
    config.train.update(batch_size=16, steps=8, accumulation=1)
    config.eval.batch_size = 128
    config.optim.min_rate = None  # it may be above the peak of so small a batch
    config.init.update(scratch=True, workdir=None, weights=None, pixels=None)
    config.teacher.update(workdir=None, weights=None, pixels=None, model=None)
    config.teacher.update(dataclasses.asdict(Distillation()))
    config.log.every = 2
    return config
