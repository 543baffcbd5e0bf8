"""MACs, parameters and memory of blocks, counted on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

import torch
from torch import nn

from hwnas.devices.costs import Layer, layers, macs, params, weight_bytes
from hwnas.latency.block import Block

__all__ = ["block_activation_mib", "block_macs", "block_params", "block_weight_mib", "macs"]

_MIB = 2.0**20


@cache
def block_macs(block: Block) -> int:
    """MACs of a block at its own batch size."""
    return macs(_on_meta(block), *block.inputs)


@cache
def block_params(block: Block) -> int:
    """Parameters of a block."""
    return params(_on_meta(block))


@cache
def block_weight_mib(block: Block) -> float:
    """Parameters and buffers of a block as they are stored, in MiB."""
    return weight_bytes(_on_meta(block)) / _MIB


@cache
def block_activation_mib(block: Block) -> float:
    """Activations of a block that are alive at once at its fullest moment, in MiB; an estimate.

    Each is kept from the layer that makes it to the last that reads it. Element-wise operators and normalisations
    write over their input where nobody reads it later, as a compiler that fuses them does.
    """
    return _alive_bytes(layers(_on_meta(block), *block.inputs), sum(map(prod, block.inputs))) / _MIB


def _alive_bytes(steps: Sequence[Layer], input_elements: int) -> int:
    if not steps:
        return 4 * input_elements
    last = {source: index for index, layer in enumerate(steps) for source in layer.sources}
    last[len(steps) - 1] = len(steps)  # the output outlives the network
    bytes_of = {index: layer.output_elements * _width(layer) for index, layer in enumerate(steps)}
    bytes_of[-1] = input_elements * _width(steps[0])
    fullest = 0
    for index, layer in enumerate(steps):
        alive = sum(size for made, size in bytes_of.items() if made < index <= last.get(made, -1))
        over = layer.kind in ("elementwise", "norm") and any(
            last[source] == index and bytes_of[source] >= bytes_of[index] for source in layer.sources
        )
        fullest = max(fullest, alive + (0 if over else bytes_of[index]))
    return fullest


def _width(layer: Layer) -> int:
    dtype: torch.dtype = getattr(torch, layer.dtype)
    return dtype.itemsize


def _on_meta(block: Block) -> nn.Module:
    with torch.device("meta"):
        return block.recipe()()
