"""Rules of halting beside A-ViT's own: thresholds, gates of each layer, least and largest depths.

    python -m avit_jax.study --config configs/study/halting_rules.py

One axis, whose options change one or more settings each. Variants: `:debug` is two cells of
seconds.
"""

from avit_jax import config as configs
from avit_jax.config import recipes
from avit_jax.study import Study

RULES = {
    "A-ViT": {},
    "eps 0.1": {"method.eps": 0.1},
    "eps 0.5": {"method.eps": 0.5},
    "learnt gates": {"method.learn_gates": True},
    "at least 2 layers": {"method.min_depth": 2},
    "at most 5 layers": {"method.max_depth": 5},
    "scores from layer 3": {"method.halt_from": 3},
    "class token stays": {"method.class_tokens_halt": False},
}


def get_study(arg: str | None = None) -> Study:
    """The study; see the module's docstring."""
    variant = configs.parse_arg(arg)
    study = Study(
        config="avit_digits:ci",
        settings={"train.epochs": 12.0, "dense_twin": None, "log.tensorboard": False},
        axes={"rule": RULES},
        seeds=range(3),
        folds=recipes.folds_of_digits(3),
        folds_in_turn=True,
        budgets=(0.4, 0.5, 0.6),
        baselines={"rule": "A-ViT"},
    )
    return study.debug() if variant.debug else study
