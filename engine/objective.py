"""Named costs over populations, and bounds on them. Inside, everything is minimised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.engine.architecture import FloatArray, IntArray

Costs = Callable[[IntArray], FloatArray]  # canonical population (n, genes) -> (n,), minimised


@dataclass(frozen=True, slots=True)
class Objective:
    """A named cost with its unit. `maximised` says that a person reads it as a gain (accuracy), turned as 1 - cost.

    A `cheap` one may be computed for any number of rows, as often as an algorithm likes; others only for rows that
    are asked. `deviations` are standard errors of the costs, where these are not exact.
    """

    name: str
    unit: str
    costs: Costs
    maximised: bool = False
    cheap: bool = False
    deviations: Costs | None = None

    def shown(self, costs: FloatArray) -> FloatArray:
        """The costs as a person reads them."""
        return 1 - costs if self.maximised else costs


@dataclass(frozen=True, slots=True)
class Constraint:
    """A hard upper limit on a cost."""

    name: str
    unit: str
    costs: Costs
    upper: float

    def __post_init__(self) -> None:
        if not np.isfinite(self.upper):
            raise ValueError(f"the limit on {self.name} is {self.upper}: give a finite number of {self.unit}")


def violation(constraints: Sequence[Constraint], X: IntArray) -> FloatArray:
    """Sum of the relative excesses over the limits, (n,); 0 where all hold."""
    total = np.zeros(len(X))
    for constraint in constraints:
        excess = constraint.costs(X) - constraint.upper
        total += np.maximum(excess, 0) / max(abs(constraint.upper), 1e-12)
    return total
