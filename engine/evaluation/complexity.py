"""MACs and parameters of blocks, counted on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.latency.block import Block


def macs(network: nn.Module, *inputs: tuple[int, ...]) -> int:
    """Multiply-accumulates of the convolutions and linear layers on inputs of these shapes."""
    total = 0

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.in_channels // module.groups * prod(module.kernel_size)
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    try:
        with torch.no_grad():
            network.eval()(*(torch.empty(shape, device=next(network.parameters()).device) for shape in inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return total


def _on_meta(block: Block, figure: Callable[[nn.Module], int]) -> int:
    with torch.device("meta"):
        return figure(block.recipe()())


@cache
def block_macs(block: Block) -> int:
    """MACs of a block at its own batch size."""
    return _on_meta(block, lambda module: macs(module, *block.inputs))


@cache
def block_params(block: Block) -> int:
    """Parameters of a block."""
    return _on_meta(block, lambda module: sum(p.numel() for p in module.parameters()))
