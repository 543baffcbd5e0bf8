"""Latency on a device, predicted from its table: of a typical run, or at a percentile of its runs."""

from __future__ import annotations

from hwnas.engine.objective import Quantity
from hwnas.engine.objectives import Estimate, Sources

ON_DEVICE = True
PERCENTILES = True


def estimate(sources: Sources, quantity: Quantity) -> Estimate:
    """Milliseconds."""
    return Estimate.of_prediction(quantity, "ms", sources.latency(quantity.device or "", quantity.percentile))
