"""Multiply-accumulates of one run."""

from __future__ import annotations

from hwnas.engine.evaluation.complexity import block_macs
from hwnas.engine.objective import Quantity
from hwnas.engine.objectives import Estimate, Sources


def estimate(sources: Sources, quantity: Quantity) -> Estimate:
    """Exactly."""
    return Estimate.of_sum(quantity, "MACs", sources.sums(block_macs))
