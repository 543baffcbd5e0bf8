"""The plain blocks of a chain: what a subnet is made of and what a latency table measures."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.latency.block import block_factory

Operator = Literal[
    "skip", "avgpool3x3", "maxpool3x3", "conv1x1", "separable3x3", "separable5x5", "conv3x3", "conv5x5"
]  # from small to large
WEIGHTLESS: tuple[Operator, ...] = ("skip", "avgpool3x3", "maxpool3x3")


def kernel_of(operator: Operator) -> int:
    """Side of the operator's window."""
    return 1 if operator == "skip" else int(operator[-1])


class Skip(nn.Module):
    """The input, or every other row and column of it."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, ceil(h / stride), ceil(w / stride))."""
        return x if self.stride == 1 else x[..., :: self.stride, :: self.stride]


def weightless(operator: Operator, stride: int) -> nn.Module:
    """An operator that keeps the number of channels."""
    if operator == "skip":
        return Skip(stride)
    return nn.AvgPool2d(3, stride, 1) if operator == "avgpool3x3" else nn.MaxPool2d(3, stride, 1)


class Head(nn.Module):
    """Pooling and classifier."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Linear(in_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> logits (n, classes)."""
        logits: Tensor = self.classify(x.mean((2, 3)))
        return logits


@block_factory("chain.layer")
def layer(*, operator: Operator, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """One operator; with weights, BatchNorm and ReLU follow."""
    if operator in WEIGHTLESS:
        return weightless(operator, stride)
    kernel, layers = kernel_of(operator), OrderedDict[str, nn.Module]()
    if operator.startswith("separable"):
        layers["depthwise"] = nn.Conv2d(
            in_channels, in_channels, kernel, stride, kernel // 2, groups=in_channels, bias=False
        )
        kernel, stride = 1, 1
    layers["conv"] = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    layers["norm"] = nn.BatchNorm2d(out_channels)
    layers["act"] = nn.ReLU()
    for module in layers.values():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return nn.Sequential(layers)


@block_factory("chain.head")
def head(*, in_channels: int, classes: int) -> nn.Module:
    """Pooling and classifier."""
    return Head(in_channels, classes)


def copy_linear(shared: nn.Linear, own: nn.Linear) -> None:
    """Fill a plain classifier with the leading inputs of a shared one."""
    with torch.no_grad():
        own.weight.copy_(shared.weight[:, : own.weight.shape[1]])
        own.bias.copy_(shared.bias)
