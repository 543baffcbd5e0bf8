"""MACs and parameters of blocks, counted on the meta device."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from hwnas.devices.costs import macs, params
from hwnas.latency.block import Block

__all__ = ["block_macs", "block_params", "macs"]


@cache
def block_macs(block: Block) -> int:
    """MACs of a block at its own batch size."""
    return macs(_on_meta(block), *block.inputs)


@cache
def block_params(block: Block) -> int:
    """Parameters of a block."""
    return params(_on_meta(block))


def _on_meta(block: Block) -> nn.Module:
    with torch.device("meta"):
        return block.recipe()()
