"""Accuracy on the validation split with inherited weights: a gain, turned here into 1 - accuracy."""

from __future__ import annotations

import numpy as np

from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.objective import Objective, Quantity
from hwnas.engine.objectives import Estimate, Sources

LIMITED = False  # a limit is kept before anything is evaluated


def estimate(sources: Sources, quantity: Quantity) -> Estimate:
    """1 - accuracy with its binomial standard error."""

    def deviations(X: IntArray) -> FloatArray:
        return share_error(sources.errors(X), sources.validation)

    return Estimate(Objective(str(quantity), "", sources.errors, maximised=True, deviations=deviations))


def share_error(share: FloatArray, images: int) -> FloatArray:
    """Standard error of a share of `images`, of the same shape; above 0 for shares of 0 and 1.

    Two of each outcome are added (Agresti and Coull, The American Statistician 52(2), 1998).
    """
    share = (share * images + 2) / (images + 4)
    return np.sqrt(share * (1 - share) / (images + 4))
