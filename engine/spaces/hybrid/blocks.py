"""The plain blocks of a hybrid chain."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from hwnas.engine.spaces._shift_adder import AdderConv2d, Operator, ShiftConv2d
from hwnas.latency.block import block_factory


class HybridLayer(nn.Sequential):
    """An operator, its BatchNorm and a ReLU."""

    op: nn.Module
    norm: nn.BatchNorm2d

    def __init__(self, in_channels: int, out_channels: int, *, operator: Operator, kernel: int, stride: int) -> None:
        op: nn.Module
        if operator == "conv":
            op = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        else:
            emulated = ShiftConv2d if operator == "shift" else AdderConv2d
            op = emulated(in_channels, out_channels, kernel, stride=stride)
        super().__init__(OrderedDict(op=op, norm=nn.BatchNorm2d(out_channels), act=nn.ReLU()))


class Head(nn.Module):
    """Pooling and a classifier."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Linear(in_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, classes) logits."""
        logits: Tensor = self.classify(x.mean((2, 3)))
        return logits


@block_factory("hybrid.layer")
def layer(*, in_channels: int, out_channels: int, operator: Operator, kernel: int, stride: int) -> nn.Module:
    """One layer; the stem is one by convolution."""
    return HybridLayer(in_channels, out_channels, operator=operator, kernel=kernel, stride=stride)


@block_factory("hybrid.head")
def head(*, in_channels: int, classes: int) -> nn.Module:
    """Everything behind the last layer."""
    return Head(in_channels, classes)
