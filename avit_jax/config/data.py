"""Settings of what is trained and evaluated on."""

from __future__ import annotations

import dataclasses

from avit_jax import validators
from avit_jax.config.settings import changeable, expand_home
from avit_jax.data.augment import Augment
from avit_jax.data.erase import Erase
from avit_jax.data.mix import Mix

MOST_WORKERS = 1024  # more processes than any machine decodes with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained and evaluated on."""

    # "digits" (in the package), "folder" (one folder of images a class), or a TFDS dataset.
    name: str = "imagenet2012"
    # Where it lies; unset, of a TFDS dataset, the environment variable TFDS_DATA_DIR.
    dir: str | None = changeable(None)
    # Of a TFDS dataset also a part, "train[:50%]"; of the digits also "forms 1-3".
    train_split: str = "train"
    eval_split: str = "validation"  # likewise
    # Images that --mode calibrate tries settings on; those trained on where unset.
    calibration_split: str | None = changeable(None)
    # Of a folder without val/: share of each class that is evaluated on and not trained on.
    holdout: float = 0.2
    # Processes that decode; 0 decodes in threads of this process.
    workers: int = changeable(0)
    # Decoding threads of each process; unset, one per core without workers, else one. More hide the
    # latency of remote storage.
    threads: int | None = changeable(None)
    # Memory for decoded evaluation images, in GB of each process, so that later evaluations of a
    # training decode only those that find no room.
    eval_cache: float = changeable(0.0)
    # Unreadable examples, as a share of those seen, that end a run.
    max_bad_share: float = changeable(0.01)
    # How often an image that was drawn is augmented, in one batch; an epoch keeps its number of
    # rows and sees fewer images. DeiT's is 3.
    repeats: int = 1
    augment: Augment = dataclasses.field(default_factory=Augment)
    erase: Erase = dataclasses.field(default_factory=Erase)
    mix: Mix = dataclasses.field(default_factory=Mix)

    def __post_init__(self):
        expand_home(self, "dir")
        prefix = "config.data."
        validators.share_below_one(self, "holdout", "max_bad_share", prefix=prefix)
        validators.at_least(1, self, "repeats", prefix=prefix)
        validators.at_least(1, self, "threads", prefix=prefix, optional=True)
        validators.not_negative(self, "eval_cache", prefix=prefix)
        validators.between(0, MOST_WORKERS, self, "workers", prefix=prefix)

    @property
    def tried_on(self) -> str:
        """The split that --mode calibrate tries settings on."""
        return self.calibration_split or self.train_split

    @property
    def tries_what_it_evaluates(self) -> bool:
        """Whether that is the evaluation split, or one of the two is a part of the other.

        Of two parts of one split nobody knows here whether they share images.
        """
        names = {self.tried_on, self.eval_split}
        whole = {name.partition("[")[0] for name in names}
        return len(names) == 1 or (len(whole) == 1 and whole <= names)

    @property
    def held_out(self) -> float:
        """`holdout`, or 0 where other splits are named: nothing is taken away from those."""
        is_usual = self.train_split == "train" and self.eval_split in ("train", "validation")
        return self.holdout if is_usual else 0.0
