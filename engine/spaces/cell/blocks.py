"""What a network of cells is made of, and what a latency table measures of it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from hwnas.latency.block import block_factory

Operation = Literal["none", "skip", "conv1x1", "conv3x3", "separable3x3", "avgpool"]
KERNELS: dict[str, int] = {"conv1x1": 1, "conv3x3": 3, "separable3x3": 3}


class Convolution(nn.Sequential):
    """ReLU, convolution, BatchNorm, in this order as in NAS-Bench-201; depthwise and pointwise where `separable`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int = 1,
        separable: bool = False,
        affine: bool = True,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(relu=nn.ReLU())
        if separable:
            layers["depthwise"] = nn.Conv2d(
                in_channels, in_channels, kernel, stride, kernel // 2, groups=in_channels, bias=False
            )
            layers["pointwise"] = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        else:
            layers["conv"] = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        layers["norm"] = nn.BatchNorm2d(out_channels, affine=affine)
        super().__init__(layers)


class Addition(nn.Module):
    """What a node does with each input after its first."""

    def forward(self, total: Tensor, term: Tensor) -> Tensor:
        """Two tensors of one shape -> their sum."""
        return total + term


class Reduction(nn.Module):
    """The residual block between stages: half the size, other channels."""

    def __init__(self, in_channels: int, out_channels: int, *, affine: bool = True) -> None:
        super().__init__()
        self.first = Convolution(in_channels, out_channels, kernel=3, stride=2, affine=affine)
        self.second = Convolution(out_channels, out_channels, kernel=3, affine=affine)
        # rounded up, as the convolution of stride 2 is, for images of odd size
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        self.project = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, out, ceil(h / 2), ceil(w / 2))."""
        found: Tensor = self.project(self.pool(x)) + self.second(self.first(x))
        return found


class Head(nn.Module):
    """BatchNorm, ReLU, pooling and the classifier."""

    def __init__(self, channels: int, classes: int, *, affine: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=affine)
        self.relu = nn.ReLU()
        self.classify = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, classes) logits."""
        logits: Tensor = self.classify(self.relu(self.norm(x)).mean((2, 3)))
        return logits


@block_factory("cell.stem")
def stem(*, in_channels: int, channels: int, affine: bool) -> nn.Module:
    """First convolution, 3x3, and BatchNorm."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(channels, affine=affine),
        )
    )


@block_factory("cell.convolution")
def convolution(*, channels: int, kernel: int, separable: bool, affine: bool) -> nn.Module:
    """An operation with weights, on an edge."""
    return Convolution(channels, channels, kernel=kernel, separable=separable, affine=affine)


@block_factory("cell.pool")
def pool() -> nn.Module:
    """3x3 average pooling on an edge; the border counts no zeros."""
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


@block_factory("cell.addition")
def addition() -> nn.Module:
    """One addition of a node."""
    return Addition()


@block_factory("cell.reduction")
def reduction(*, in_channels: int, out_channels: int, affine: bool) -> nn.Module:
    """The residual block between two stages."""
    return Reduction(in_channels, out_channels, affine=affine)


@block_factory("cell.head")
def head(*, channels: int, classes: int, affine: bool) -> nn.Module:
    """Everything behind the last cell."""
    return Head(channels, classes, affine=affine)


def operation(name: str, channels: int, *, affine: bool) -> nn.Module:
    """The module of an edge's operation; `skip` is an identity. Raises KeyError for `none`, which has no module."""
    if name == "skip":
        return nn.Identity()
    if name == "avgpool":
        return pool()
    return convolution(channels=channels, kernel=KERNELS[name], separable=name.startswith("separable"), affine=affine)
