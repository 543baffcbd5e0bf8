"""Parameters."""

from __future__ import annotations

from hwnas.engine.evaluation.complexity import block_params
from hwnas.engine.objective import Quantity
from hwnas.engine.objectives import Estimate, Sources


def estimate(sources: Sources, quantity: Quantity) -> Estimate:
    """Exactly."""
    return Estimate.of_sum(quantity, "parameters", sources.sums(block_params))
