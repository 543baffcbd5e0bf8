"""Energy of one run by a table of operations and memory accesses, the same for every device: a model."""

from __future__ import annotations

from hwnas.engine.energy import block_energy_uj
from hwnas.engine.objective import Quantity
from hwnas.engine.objectives import Estimate, Sources


def estimate(sources: Sources, quantity: Quantity) -> Estimate:
    """Microjoules, with equal charges for moving data whatever the operator (`hwnas.engine.energy`)."""
    return Estimate.of_sum(quantity, "µJ", sources.sums(block_energy_uj))
