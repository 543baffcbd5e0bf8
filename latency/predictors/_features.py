"""What a block is charged for, and how its arguments describe it: columns for regressors, counted on shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from hwnas.devices.costs import layers
from hwnas.latency.block import Block
from hwnas.latency.predictors import FloatArray

COST_NAMES = ("MACs", "numbers moved", "weights", "operations")


@lru_cache(maxsize=65_536)
def block_costs(block: Block) -> tuple[float, float, float, float]:
    """MACs, numbers read and written, weights and operations of a block. Raises LookupError, ValueError."""
    with torch.device("meta"):
        module = block.recipe()()
    found = layers(module, *block.inputs)
    return (
        float(sum(layer.macs for layer in found)),
        float(sum(layer.input_elements + layer.weight_elements + layer.output_elements for layer in found)),
        float(sum(layer.weight_elements for layer in found)),
        float(len(found)),
    )


def cost_columns(blocks: Sequence[Block]) -> FloatArray:
    """`block_costs` of each block, (blocks, 4)."""
    return np.array([block_costs(block) for block in blocks], dtype=np.float64).reshape(-1, len(COST_NAMES))


def network_costs(networks: Sequence[Sequence[Block]]) -> FloatArray:
    """Costs of whole networks, (networks, 5): those of `block_costs` summed, then the number of blocks."""
    sums = [[*cost_columns(blocks).sum(0), len(blocks)] for blocks in networks]
    return np.array(sums, dtype=np.float64).reshape(-1, len(COST_NAMES) + 1)


class ArgumentColumns:
    """Columns for the arguments and input shapes of blocks of one factory: logarithms of numbers, the rest one-hot."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        """`blocks` are those that teach: an option they do not hold has no column."""
        self._options = {
            name: sorted({str(value) for block in blocks for key, value in block.kwargs if key == name})
            for name in sorted({key for block in blocks for key, value in block.kwargs if not _number(value)})
        }
        self._numbers = sorted({key for block in blocks for key, value in block.kwargs if _number(value)})
        self._sizes = max((sum(map(len, block.inputs)) for block in blocks), default=0)

    def __call__(self, blocks: Sequence[Block]) -> FloatArray:
        """(blocks, columns)."""
        return np.array([self._row(block) for block in blocks], dtype=np.float64).reshape(len(blocks), -1)

    def _row(self, block: Block) -> list[float]:
        given = dict(block.kwargs)
        sizes = [float(size) for shape in block.inputs for size in shape][: self._sizes]
        sizes += [1.0] * (self._sizes - len(sizes))
        numbers = [float(given[name]) if _number(given.get(name)) else 0.0 for name in self._numbers]
        options = [float(str(given.get(name)) == option) for name, found in self._options.items() for option in found]
        return [*np.log1p(np.abs(sizes)), *np.log1p(np.abs(numbers)), *options]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
