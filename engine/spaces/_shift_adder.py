"""Convolutions without multiplications: by shifts (powers of two) and by additions (l1 distances), emulated in floats.

An emulated layer is slower than the convolution that it replaces, so its timings say nothing about a device that has
shifters and adders. A layer here refuses to be exported or to be read by a modelled device; what it costs comes from
`hwnas.engine.energy`. Layers made on torch's meta device count: a shift or an addition is one accumulation, as is a
multiplication.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Operator = Literal["conv", "shift", "add"]
OPERATORS: tuple[Operator, ...] = ("conv", "shift", "add")
# A sign bit and four bits for sixteen codes: zero, and fifteen powers of two from 2^-14 to 1
EXPONENTS = (-14, 0)
ACTIVATION_BITS, ACTIVATION_FRACTION = 16, 8  # fixed point: 16 bits, of which 8 lie behind the point
ADDER_RATE = 0.2  # AdderNet's eta


class EmulatedOperatorError(RuntimeError):
    """An emulated layer that something wants to time or to deploy."""


def power_of_two(weight: Tensor) -> Tensor:
    """Each number as its sign times the nearest power of two by logarithm; the gradient passes through unchanged.

    Elhoushi et al., DeepShift (CVPR Workshops 2021). Below 2^-14.5 a number becomes 0. The same shape.
    """
    low, high = EXPONENTS
    size = weight.detach().abs()
    exponent = size.clamp_min(2.0 ** (low - 1)).log2().round().clamp(low, high)
    rounded = torch.where(size < 2.0 ** (low - 0.5), 0.0, weight.detach().sign() * 2.0**exponent)
    return weight + (rounded - weight).detach()


def fixed_point(x: Tensor) -> Tensor:
    """`x` in 16 bits of fixed point, 8 behind the point: -128 to 127.996; the gradient passes where it fits."""
    step, most = 2.0**-ACTIVATION_FRACTION, 2.0 ** (ACTIVATION_BITS - ACTIVATION_FRACTION - 1)
    clipped = x.clamp(-most, most - step)
    return clipped + ((clipped / step).round() * step - clipped).detach()


class _Adder(torch.autograd.Function):
    """y[p, o] = -sum_d |x[p, d] - w[o, d]| with AdderNet's gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rate: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rate = rate
        return -torch.cdist(x, weight, p=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (g,) = gradients
        x, weight = ctx.saved_tensors
        into_x = into_weight = None
        if ctx.needs_input_grad[0]:
            into_x = torch.zeros_like(x)
            for o in range(len(weight)):  # one output channel at a time: all at once would be (p, o, d) in memory
                into_x.addcmul_((weight[o] - x).clamp_(-1, 1), g[:, o : o + 1])
        if ctx.needs_input_grad[1]:
            into_weight = g.T @ x - g.sum(0)[:, None] * weight  # sum_p (x - w) g: the full-precision gradient
            into_weight = ctx.rate * sqrt(weight.numel()) / into_weight.norm().clamp_min(1e-12) * into_weight
        return into_x, into_weight, None


def adder_conv2d(x: Tensor, weight: Tensor, *, stride: int, padding: int, rate: float = ADDER_RATE) -> Tensor:
    """Minus the l1 distance of every patch to every filter: (n, c, h, w) and (o, c, k, k) -> (n, o, h', w').

    Chen et al., AdderNet (CVPR 2020): the gradient of a weight is sum (x - w) g, scaled to the norm rate * sqrt(numbers
    in the weight), that of an input sum clip(w - x, -1, 1) g.
    """
    n, _, height, width = x.shape
    kernel = weight.shape[-1]
    rows, columns = ((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
    patches = F.unfold(x, kernel, padding=padding, stride=stride).transpose(1, 2).reshape(n * rows * columns, -1)
    y: Tensor = _Adder.apply(patches, weight.flatten(1), rate)  # type: ignore[no-untyped-call]  # torch's own
    return y.reshape(n, rows * columns, -1).transpose(1, 2).reshape(n, -1, rows, columns)


def convolve(operator: Operator, x: Tensor, weight: Tensor, *, stride: int) -> Tensor:
    """(n, c, h, w) by the operator with the weight that it uses -> (n, o, ceil(h / stride), ceil(w / stride))."""
    padding = weight.shape[-1] // 2
    if operator == "add":
        return adder_conv2d(x, weight, stride=stride, padding=padding)
    if operator == "shift":
        x, weight = fixed_point(x), power_of_two(weight)
    return F.conv2d(x, weight, stride=stride, padding=padding)


class _Emulated(nn.Module):
    """A convolution of odd kernel without bias, whose weight an operator reads in its own way."""

    operator: Operator

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.stride = stride
        self.counts = self.weight.is_meta
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, o, ceil(h / stride), ceil(w / stride))."""
        if self.counts:
            return F.conv2d(x, self.weight, stride=self.stride, padding=self.weight.shape[-1] // 2)
        if x.is_meta or torch.compiler.is_exporting():
            raise EmulatedOperatorError(
                f"a layer of {self.operator!r} is emulated in floats here, its time and its cost on a device with "
                "multipliers are not those of the operator: leave it out of latency tables, weigh it by energy instead"
            )
        return convolve(self.operator, x, self.weight, stride=self.stride)


class ShiftConv2d(_Emulated):
    """Convolution by powers of two: 5-bit weights, 16-bit fixed-point inputs, straight-through gradients."""

    operator: Operator = "shift"


class AdderConv2d(_Emulated):
    """Minus the l1 distance of patches and filters (`adder_conv2d`). All negative: a normalisation has to follow."""

    operator: Operator = "add"

    def reset_parameters(self) -> None:
        """Standard normal, as in AdderNet: a distance has no scale of its own to keep."""
        nn.init.normal_(self.weight)


class PiecewiseScale(nn.Module):
    """w -> s_i w for w in the i-th of equal bins between the least and the largest weight (ShiftAddNAS, section 4).

    The last bin is closed: left open, the largest weight would be in none and become 0. Scales begin at one positive
    number, the ratio of the spreads of what is wanted and what there is; drawn from N(0, 1) they would flip signs.
    The gradient reaches a weight divided by its scale, so that a step on the weight moves the mapped weight as far as
    the same step on the mapped weight itself would: by the chain rule it would be moved s_i^2 times as far.
    """

    def __init__(self, bins: int = 100, *, scale: float = 1.0) -> None:
        super().__init__()
        if bins < 1 or scale <= 0:
            raise ValueError(f"bins={bins} and scale={scale}: give one bin at least and a positive scale")
        self.scales = nn.Parameter(torch.full((bins,), float(scale)))

    def forward(self, weight: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return _Scaled.apply(weight, self.scales[self.bins(weight)])  # type: ignore[no-any-return, no-untyped-call]

    def bins(self, weight: Tensor) -> Tensor:
        """The bin of each weight, int64."""
        weight = weight.detach()
        low, high = weight.min(), weight.max()
        count = len(self.scales)
        return ((weight - low) / (high - low).clamp_min(1e-12) * count).long().clamp_(0, count - 1)


class _Scaled(torch.autograd.Function):
    """weight * scale, with the weight's gradient divided by the scale instead of multiplied."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return weight * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (g,) = gradients
        weight, scale = ctx.saved_tensors
        # a scale that training has brought near 0 would send its weights away
        size = scale.abs().clamp_min(0.1)
        return g / torch.where(scale < 0, -size, size), g * weight
