"""Training recipes that several config files share, so that a model and its dense twin agree.

Each changes what it says in a config from `base` and leaves the rest, the method's settings among
it, as it is. What a config file sets afterwards has the last word.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from avit_jax.data import digits as packaged_digits


def imagenet_from_scratch(config: ConfigDict) -> None:
    """DeiT's training (arXiv 2012.12877, Table 9, and its code): a cosine of 300 epochs, then 10.

    DeiT's code asks for the 10 epochs of cool-down at the lowest rate, and its loop ends in front
    of them; without them `train.epochs` is 300 and `optim.cooldown_epochs` 0. Its rate changes with
    every epoch and lags one behind, here it changes with every step.
    """
    _deit(config, batch_size=1024, epochs=300, cooldown=10, learning_rate=5e-4)


def avit_published(config: ConfigDict, *, batch_size: int, learning_rate: float) -> None:
    """Trained weights taught to halt by the command in A-ViT's README: 100 epochs of DeiT's recipe.

    Args:
        config: to change. It then refuses to start from random weights.
        batch_size: images per step, over the four GPUs of the command.
        learning_rate: as in the command, for 512 images per step: its code scales the rate, too.
    """
    config.init.scratch = False
    _deit(config, batch_size=batch_size, epochs=100, cooldown=0, learning_rate=learning_rate)


def distilled(config: ConfigDict) -> None:
    """Hard distillation as DeiT's: half of the loss is the teacher's first choice.

    With a distillation token its head learns that, and that of the class token the labels. A
    training then asks for a teacher.
    """
    config.teacher.update(attention=0.0, hidden=0.0, logits=0.5, labels=0.5, answers="hard")


def deit_images(config: ConfigDict, *, gpus: int = 4) -> None:
    """What DeiT does to the images of a training, each setting as its published command has it.

    Args:
        config: to change; its batch size has to be there already.
        gpus: of the command: the images of each were mixed alike.
    """
    config.data.repeats = 3
    config.data.augment.randaugment = "rand-m9-mstd0.5-inc1"
    config.data.erase.update(probability=0.25, mode="pixel")
    config.data.mix.update(mixup=0.8, cutmix=1.0, probability=1.0, cutmix_share=0.5)
    config.data.mix.update(per="batch", group=config.train.batch_size // gpus)


def imagenet_fine_tuning(config: ConfigDict, *, learning_rate: float) -> None:
    """Trained weights taught to skip: 100 epochs, 5 of warm-up, batches of 1,024.

    Images are cropped, flipped and mixed, no more: a few cores feed an accelerator with them.

    Args:
        config: to change. It then refuses to start from random weights.
        learning_rate: the peak for 512 images per step; 5e-4 for DeiT-T and 3e-4 for DeiT-S are
            published (arXiv 2112.07658 and its repository's README).
    """
    config.init.scratch = False
    _imagenet(config, batch_size=1024, epochs=100, learning_rate=learning_rate)
    config.optim.warmup = 0.05
    config.data.mix.update(mixup=0.8, cutmix=1.0)


def halting_from_scratch(*, target_depth: float, scale: float) -> dict[str, Any]:
    """Settings of an A-ViT that has no trained weights to start from.

    It learns densely first, then halting and its penalties come in gradually, and the prior is held
    against the distribution of halting itself.

    Args:
        target_depth: mean of the Gaussian depth prior, in layers.
        scale: its standard deviation, in layers.
    """
    return {
        "gate_scale": 10.0,
        "gate_center": 20.0,
        "ponder_weight": 3e-3,
        "kl_reading": "halting",
        "prior": "gaussian",
        "prior_weight": 0.5,
        "target_depth": target_depth,
        "scale": scale,
        "dense_until": 0.3,
        "ramp": 0.2,
    }


def on_live_rows(config: ConfigDict) -> None:
    """Steps of A-ViT that leave out what has halted, and the reading of the prior they need."""
    config.train.rows = "live"
    config.method.kl_reading = "halting"


def _deit(
    config: ConfigDict, *, batch_size: int, epochs: int, cooldown: int, learning_rate: float
) -> None:
    _imagenet(config, batch_size=batch_size, epochs=epochs + cooldown, learning_rate=learning_rate)
    config.optim.update(
        warmup_epochs=5.0,
        warmup_start=1e-6,
        min_rate=1e-5,
        cooldown_epochs=float(cooldown),
        cosine_under_warmup=True,
    )
    deit_images(config)


def _imagenet(config: ConfigDict, *, batch_size: int, epochs: int, learning_rate: float) -> None:
    config.train.update(batch_size=batch_size, epochs=float(epochs), ema_decay=0.99996)
    # The peak is learning_rate * batch_size / 512.
    config.optim.update(learning_rate=learning_rate, weight_decay=0.05)
    config.model.update(drop_path_rate=0.1, dtype="bfloat16")


def few_photographs(config: ConfigDict, *, learning_rate: float) -> None:
    """Published weights taught other classes by some hundred photographs, in a folder of them.

    Early layers move least, the patch embedding not at all, and an average of the weights is used.
    Crops keep at least a third of a photograph: few enough to be learnt by heart, they need not be
    as varied as ImageNet's.

    Args:
        config: to change. It then refuses to start from random weights.
        learning_rate: the peak, of the classifier, for 32 images per step.
    """
    config.init.scratch = False
    config.data.name = "folder"
    config.data.augment.min_scale = 0.35
    config.train.update(batch_size=32, epochs=20.0, ema_decay=0.998, ema_warmup=True)
    config.optim.update(
        learning_rate=learning_rate,
        reference_batch_size=32,
        warmup=0.1,
        clip_norm=1.0,
        freeze=("patch_embed*",),
        layer_decay=0.75,
    )
    config.eval.update(every=5.0, batch_size=64)
    config.checkpoint.every = 5.0
    config.log.every = 10


def cifar(config: ConfigDict, *, classes: int) -> None:
    """Weights of ImageNet taught CIFAR-10 or CIFAR-100, whose images are enlarged, in 60 epochs."""
    config.init.scratch = False
    config.model.num_classes = classes
    config.data.name = f"cifar{classes}"
    config.data.eval_split = "test"
    config.train.update(batch_size=256, epochs=60.0)
    config.optim.update(
        learning_rate=1e-4, reference_batch_size=256, warmup=5 / 60, weight_decay=0.05
    )


def imagenette(config: ConfigDict, *, epochs: float, learning_rate: float) -> None:
    """Imagenette at 128 px, ten easy classes of ImageNet, in batches of 64."""
    config.model.update(num_classes=10, image_size=128)
    config.data.name = "imagenette/160px-v2"
    config.data.augment.update(min_scale=0.35)
    config.train.update(batch_size=64, epochs=epochs)
    config.optim.update(
        learning_rate=learning_rate,
        reference_batch_size=64,
        warmup=0.1,
        weight_decay=0.05,
        clip_norm=1.0,
    )
    config.eval.update(every=1.0, batch_size=128)
    config.log.every = 20


def digits(config: ConfigDict) -> None:
    """The digits in the package, from scratch: minutes on a laptop."""
    config.model.num_classes = 10
    config.data.name = "digits"
    config.data.augment.update(kind="affine", rotation=0.2, zoom=0.12, shift=3.0, crop_ratio=1.0)
    config.train.update(batch_size=32, epochs=95.0, ema_decay=0.995)
    config.optim.update(learning_rate=2e-3, reference_batch_size=32, warmup=0.1, clip_norm=1.0)
    config.eval.every = 19.0
    config.checkpoint.every = 5.0
    config.log.every = 80


def folds_of_digits(count: int) -> list[dict[str, str]]:
    """Settings of each fold of a cross-validation on the digits: all 1,797 are evaluated once."""
    return [
        {"data.train_split": trained, "data.eval_split": evaluated}
        for trained, evaluated in packaged_digits.folds(count)
    ]
