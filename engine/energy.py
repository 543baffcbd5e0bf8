"""What multiplications, shifts and additions cost in energy, from a table of operations and memory accesses.

A model, not a measurement: emulated operators have no timings worth anything, so this is what they are weighed by. The
figures of the table are those of ShiftAddNAS's released code (You et al., ICML 2022). The dataflow is ours, simpler
than its search over tilings: an array of 16 rows (output channels) by 12 columns (output positions) as in Eyeriss, to
which the weights are sent once a group of columns and the inputs once a group of rows, each number crossing the
memory of the chip's outside once. It tells operators and widths apart; it does not predict a chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Literal

import torch

from hwnas.devices.costs import MULTIPLYING, Layer, layers
from hwnas.latency.block import Block

Operator = Literal["conv", "shift", "add"]
Accounting = Literal["equal", "released"]

ROWS, COLUMNS = 16, 12


@dataclass(frozen=True, slots=True)
class EnergyTable:
    """Picojoules of an operation, and of moving 16 bits at each level of memory."""

    multiply: float
    add: float
    shift: float
    dram: float = 200.0
    buffer: float = 6 * 3.7
    network: float = 2 * 3.7  # between the elements of the array
    register: float = 3.7
    weight_register: float = 2 * 3.7


FLOAT32 = EnergyTable(multiply=3.7, add=0.9, shift=0.13)
INT8 = EnergyTable(multiply=0.2, add=0.03, shift=0.024)

BITS = 16  # of a number that is moved
SHIFT_BITS = (16 + 5) // 2  # of a shift layer's numbers in the released accounting: activations have 16, weights 5


def layer_energy_pj(layer: Layer, operator: Operator, *, table: EnergyTable, accounting: Accounting) -> float:
    """Energy of one operator of a network in pJ; only those that multiply matrices, or would, cost anything.

    "released" is the accounting of ShiftAddNAS's code: an addition layer pays for one addition an accumulation and for
    no movement of data but in registers, a shift layer moves 10 bits where others move 16. "equal" moves 16 bits for
    everybody and charges |x - w| and its accumulation as the two additions that they are.
    """
    if layer.kind not in MULTIPLYING:
        return 0.0
    released = accounting == "released"
    operations = {
        "conv": table.multiply + table.add,
        "shift": table.shift + table.add,
        "add": table.add if released else 2 * table.add,
    }
    bits = SHIFT_BITS if released and operator == "shift" else BITS
    registers = 2 * table.register + table.weight_register  # an input, a partial sum, a weight
    energy = layer.macs * (operations[operator] + registers * bits / 16)
    if released and operator == "add":
        return energy
    channels, positions = _output(layer)
    weights, inputs, outputs = layer.weight_elements, layer.input_elements, layer.output_elements
    sent = weights * ceil(positions / COLUMNS) + inputs * ceil(channels / ROWS) + outputs
    moved = (weights + inputs + outputs) * table.dram + sent * (table.buffer + table.network)
    return energy + moved * bits / 16


def _output(layer: Layer) -> tuple[int, int]:
    """(channels, positions) of what a layer writes."""
    if layer.kind in ("conv", "depthwise", "transposed"):
        return layer.output[1], layer.output_elements // layer.output[1]
    return layer.output[-1], layer.output_elements // layer.output[-1]


@cache
def block_energy_uj(block: Block, *, table: EnergyTable = FLOAT32, accounting: Accounting = "equal") -> float:
    """Energy of one run of a block in microjoules; its operator is the argument of that name, or multiplies."""
    operator: Operator = dict(block.kwargs).get("operator", "conv")  # type: ignore[assignment]  # one of the three
    with torch.device("meta"):
        network = block.recipe()()
    found = layers(network, *block.inputs)
    return sum(layer_energy_pj(each, operator, table=table, accounting=accounting) for each in found) / 1e6
