"""Neighbours that halt with a patch: what it costs, and whether depth maps become smoother.

    python -m avit_jax.study --config configs/study/spread.py

Half of the patches that halt take their neighbours along, trained so from the beginning. Smoothness
is the column "roughness" of the tables. Variants: `:debug` is two cells of seconds.
"""

from avit_jax import config as configs
from avit_jax.config import recipes
from avit_jax.study import Study


def get_study(arg: str | None = None) -> Study:
    """The study; see the module's docstring."""
    variant = configs.parse_arg(arg)
    study = Study(
        config="avit_digits:ci",
        settings={
            "train.epochs": 12.0,
            "dense_twin": None,
            "log.tensorboard": False,
            "method.spread_share": 0.5,
        },
        axes={"method.spread": ("none", "nearby", "cross", "diagonal", "square", "circle")},
        seeds=range(3),
        folds=recipes.folds_of_digits(3),
        folds_in_turn=True,
        budgets=(0.4, 0.5, 0.6),
        baselines={"method.spread": "none"},
    )
    return study.debug() if variant.debug else study
