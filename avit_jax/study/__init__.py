"""Studies: a grid of trainings on one dataset, and what they say with its uncertainty.

A study file describes one as a `Study`; `python -m avit_jax.study --config FILE` runs it. Stands on
top of training, calibration and evaluation, which know nothing of it.
"""

from avit_jax.study.design import Study

__all__ = ["Study"]
