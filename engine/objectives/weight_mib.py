"""Weights as they are stored, parameters and buffers."""

from __future__ import annotations

from hwnas.engine.evaluation.complexity import block_weight_mib
from hwnas.engine.objective import Quantity
from hwnas.engine.objectives import Estimate, Sources


def estimate(sources: Sources, quantity: Quantity) -> Estimate:
    """MiB, exactly."""
    return Estimate.of_sum(quantity, "MiB", sources.sums(block_weight_mib))
