"""Memory that a network needs while it runs: its weights, and the activations that are alive at once at its widest."""

from __future__ import annotations

import numpy as np

from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.evaluation.complexity import block_activation_mib, block_weight_mib
from hwnas.engine.objective import Objective, Quantity
from hwnas.engine.objectives import Estimate, Sources


def estimate(sources: Sources, quantity: Quantity) -> Estimate:
    """MiB; an estimate, as what the runtime plans is only known of a compiled network (`FrontPoint.peak_memory_bytes`).

    Activations are those of the block that holds the most at once. They are no sum over blocks, so a limit that no
    network keeps is found out by the search, unless the weights alone break it.
    """
    weights, activations = sources.sums(block_weight_mib), sources.sums(block_activation_mib)

    def costs(X: IntArray) -> FloatArray:
        parts = zip(activations.scopes, activations.arrays, strict=True)
        widest = np.max([array[tuple(X[:, scope].T)] for scope, array in parts], axis=0)
        return np.asarray(weights(X) + widest, dtype=np.float64)

    return Estimate(Objective(str(quantity), "MiB", costs, cheap=True), additive=weights)
