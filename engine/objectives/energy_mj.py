"""Energy of one run on a device whose table has it: by a counter of the machine or by a model of the device."""

from __future__ import annotations

from hwnas.engine.objective import Quantity
from hwnas.engine.objectives import Estimate, Sources

ON_DEVICE = True


def estimate(sources: Sources, quantity: Quantity) -> Estimate:
    """Millijoules."""
    return Estimate.of_prediction(quantity, "mJ", sources.energy(quantity.device or ""))
