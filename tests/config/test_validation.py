"""Values that cannot be, or contradict each other, are refused in a sentence."""

import pytest

from avit_jax import config as configs
from avit_jax.errors import UserError
from tests.config.changed import changed

POSITIVE = [
    ("train__batch_size", 0), ("train__accumulation", 0), ("train__epochs", -1.0),
    ("eval__batch_size", 0), ("eval__every", 0.0), ("checkpoint__every", 0.0),
    ("checkpoint__keep", 0), ("log__every", -5), ("optim__learning_rate", 0.0),
    ("optim__learning_rate", float("nan")), ("optim__reference_batch_size", 0),
    ("optim__eps", 0.0),
]  # fmt: skip
SHARES = [
    ("train__ema_decay", 1.0), ("train__label_smoothing", -0.1), ("optim__warmup", 1.5),
    ("optim__min_learning_rate", 1.0), ("data__max_bad_share", float("nan")),
    ("optim__b1", 2.0), ("optim__b2", 1.0), ("optim__layer_decay", 1.5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), POSITIVE)
def test_what_must_be_positive_is_named_with_its_value(name, value):
    key = name.replace("__", ".")
    with pytest.raises(UserError, match=f"^config.{key} is {value}: write a number above 0.$"):
        configs.Settings.of(changed(**{name: value}))


@pytest.mark.parametrize(("name", "value"), SHARES)
def test_what_must_be_a_share_is_named_with_its_value(name, value):
    key = name.replace("__", ".")
    with pytest.raises(UserError, match=f"^config.{key} is {value}: write a share"):
        configs.Settings.of(changed(**{name: value}))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seed": -1}, "config.seed is -1: write a number from 0 to 4294967295."),
        ({"seed": 2**32}, "config.seed is 4294967296: write a number from 0 to 4294967295."),
        ({"train__steps": 0}, "config.train.steps is 0: write at least 1, or leave it out."),
        (
            {"train__batch_size": 10, "train__accumulation": 4},
            "batch_size 10 is not a multiple of config.train.accumulation 4: change one of them.",
        ),
        ({"data__repeats": 0}, "config.data.repeats is 0: write at least 1."),
        (
            {"train__on_nonfinite": "ignore"},
            "on_nonfinite is 'ignore': write one of stop, rollback.",
        ),
        (
            {"init__workdir": "runs/a", "init__weights": "b.pth"},
            "config.init.workdir is 'runs/a' and config.init.weights 'b.pth', but a model starts "
            "from one of them: leave the other out.",
        ),
        ({"init__pixels": "raw"}, "init.pixels is 'raw': write one of imagenet, symmetric, or"),
        (
            {"teacher__workdir": "runs/a", "teacher__weights": "b.pth"},
            "config.teacher.workdir is 'runs/a' and config.teacher.weights 'b.pth', but a student "
            "has one of them: leave the other out.",
        ),
        ({"teacher__pixels": "raw", "teacher__weights": "b.pth"}, "teacher.pixels is 'raw': write"),
        (
            {"teacher__workdir": "runs/a", "teacher__model": "deit_tiny_patch16_224"},
            "says itself which model it is: leave one of them out.",
        ),
        ({"teacher__answers": "soft"}, "answers is 'soft': write one of cross_entropy, hard, kl."),
        ({"train__loss": "mse"}, "train.loss is 'mse': write one of cross_entropy, bce."),
        ({"optim__name": "sgd"}, "optim.name is 'sgd': write one of adamw, lamb, lion."),
        ({"optim__min_rate": -1.0}, "optim.min_rate is -1.0: write 0 or more, or leave it out."),
        (
            {"optim__warmup_epochs": 95.0, "optim__cooldown_epochs": 5.0},
            "are 100 epochs together, but config.train.epochs is 100: write fewer of them, or more",
        ),
        ({"teacher__attention": -1.0}, "config.teacher.attention is -1.0: write 0 or more."),
        ({"teacher__temperature": 0.0}, "temperature is 0.0: write a number above 0."),
        ({"eval__weights": "best"}, "eval.weights is 'best': write one of auto, ema, raw."),
        ({"eval__weights": "ema"}, "there is no moving average: write auto or raw, or train with"),
    ],
)
def test_contradictions_are_refused_with_what_to_write(values, sentence):
    with pytest.raises(UserError) as refusal:
        configs.Settings.of(changed(**values))
    assert sentence in str(refusal.value)


def test_what_is_allowed_passes():
    configs.Settings.of(
        changed(train__steps=1, eval__weights="raw", train__on_nonfinite="rollback")
    )
    configs.Settings.of(changed(teacher__workdir="runs/a", teacher__attention=0.0))
    configs.Settings.of(changed(eval__weights="ema", train__ema_decay=0.99, train__accumulation=4))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"model__image_size": 30}, "image_size 30"),
        ({"method__eps": 2.0}, "eps is 2.0"),
        ({"method__gate_scale": float("inf")}, "gate_scale is inf: write a finite number"),
        ({"method__gate_center": float("nan")}, "gate_center is nan: write a finite number"),
        ({"method__ponder_weight": -1.0}, "ponder_weight is -1.0: write 0 or more"),
        ({"method__prior_weight": float("nan")}, "prior_weight is nan: write 0 or more"),
    ],
)
def test_a_model_that_cannot_be_is_refused_when_it_is_made(values, found):
    with pytest.raises(ValueError, match=found):
        configs.make_model(changed(**values))
