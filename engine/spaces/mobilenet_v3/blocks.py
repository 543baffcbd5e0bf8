"""The plain blocks of MobileNetV3: what a subnet is made of and what a latency table measures."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from hwnas.latency.block import block_factory

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "hswish": nn.Hardswish}


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, never more than 10 % below it (MobileNetV2's rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def squeeze_width(channels: int) -> int:
    """Hidden width of squeeze-and-excite over `channels` (a quarter, as in Once-for-All)."""
    return make_divisible(channels // 4)


class SqueezeExcite(nn.Module):
    """Channel gates from the pooled input (Hu et al., 2018), with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = squeeze_width(channels)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        pooled = x.mean((2, 3), keepdim=True)
        gates = nn.functional.hardsigmoid(self.expand(torch.relu(self.reduce(pooled))))
        return x * gates


class ConvBnAct(nn.Sequential):
    """Convolution without bias, BatchNorm and an activation (none for the empty name)."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: str = "",
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            norm=nn.BatchNorm2d(out_channels),
        )
        if activation:
            layers["act"] = ACTIVATIONS[activation]()
        super().__init__(layers)


class MBConv(nn.Module):
    """Inverted residual block: expand, depthwise, squeeze-and-excite, project (Howard et al., 2019)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int, hidden: int, se: bool, activation: str
    ) -> None:
        super().__init__()
        # an expansion of 1 has no expanding convolution, as in Once-for-All
        expands = hidden != in_channels
        self.expand = ConvBnAct(in_channels, hidden, kernel=1, activation=activation) if expands else None
        self.depthwise = ConvBnAct(hidden, hidden, kernel=kernel, stride=stride, groups=hidden, activation=activation)
        self.se = SqueezeExcite(hidden) if se else None
        self.project = ConvBnAct(hidden, out_channels, kernel=1)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, out, ceil(h / stride), ceil(w / stride))."""
        y = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        if self.se is not None:
            y = self.se(y)
        y = self.project(y)
        out: Tensor = x + y if self.residual else y
        return out


class Head(nn.Module):
    """Last 1x1 convolution, pooling, feature mix and classifier."""

    def __init__(self, in_channels: int, channels: int, features: int, classes: int, activation: str) -> None:
        super().__init__()
        self.conv = ConvBnAct(in_channels, channels, kernel=1, activation=activation)
        self.mix = nn.Linear(channels, features, bias=False)
        self.act = ACTIVATIONS[activation]()
        self.classify = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, classes) logits."""
        pooled = self.conv(x).mean((2, 3))
        logits: Tensor = self.classify(self.act(self.mix(pooled)))
        return logits


@block_factory("mobilenet_v3.stem")
def stem(*, in_channels: int, out_channels: int, stride: int, activation: str) -> nn.Module:
    """First convolution, 3x3."""
    return ConvBnAct(in_channels, out_channels, kernel=3, stride=stride, activation=activation)


@block_factory("mobilenet_v3.mbconv")
def mbconv(
    *, in_channels: int, out_channels: int, kernel: int, stride: int, hidden: int, se: bool, activation: str
) -> nn.Module:
    """One MBConv with `hidden` expanded channels."""
    return MBConv(in_channels, out_channels, kernel=kernel, stride=stride, hidden=hidden, se=se, activation=activation)


@block_factory("mobilenet_v3.head")
def head(*, in_channels: int, channels: int, features: int, classes: int, activation: str) -> nn.Module:
    """Everything behind the last stage."""
    return Head(in_channels, channels, features, classes, activation)
