"""The operators of a convolutional network with channels last, as TE expressions that the schedule knows by name.

Activations are (batch, height, width, channels) or (batch, channels), their channels padded to whole vectors:
padded outputs come from zero weights, and no real output reads a padded input. The names that the schedule and
the fusion know them by begin with `last_`, which no operator of TVM's own does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = Any  # te.Tensor
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """A convolution's geometry."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, left, bottom, right
    dilation: tuple[int, int]

    @property
    def is_point(self) -> bool:
        """Whether each output sees one input and none is skipped."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not any(self.padding)

    def out(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output."""
        top, left, bottom, right = self.padding
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        return (
            (height + top + bottom - spans[0]) // self.stride[0] + 1,
            (width + left + right - spans[1]) // self.stride[1] + 1,
        )


def pack(weights: Floats, tile: int, padded: int) -> Floats:
    """(..., inputs, outputs) -> (padded / tile, ..., inputs, tile): what a tile reads lies in one row."""
    *outer, outputs = weights.shape
    wide = np.zeros((*outer, padded), np.float32)
    wide[..., :outputs] = weights
    split = wide.reshape(*outer, padded // tile, tile)
    return np.ascontiguousarray(np.moveaxis(split, -2, 0))


def pad_channels(array: Floats, padded: int, fill: float = 0.0) -> Floats:
    """Append channels of `fill` to the last axis."""
    widths = [(0, 0)] * (array.ndim - 1) + [(0, padded - array.shape[-1])]
    return np.pad(array, widths, constant_values=fill)


def pointwise(x: Tensor, weights: Tensor, *, channels: int, last: bool) -> Tensor:
    """A 1x1 convolution (4 axes) or a linear layer (2 axes) of `channels` inputs; x may still have channels first."""
    from tvm import te

    tiles, _, tile = (int(n) for n in weights.shape)
    k = te.reduce_axis((0, channels), name="k")
    if len(x.shape) == 2:
        return te.compute(
            (x.shape[0], tiles * tile),
            lambda n, o: te.sum(x[n, k] * weights[o // tile, k, o % tile], axis=k),
            name="last_pointwise",
        )
    batch, height, width = _extents(x, last)
    read = _reader(x, last)
    return te.compute(
        (batch, height, width, tiles * tile),
        lambda n, y, x_, o: te.sum(read(n, y, x_, k) * weights[o // tile, k, o % tile], axis=k),
        name="last_pointwise",
    )


def conv(x: Tensor, weights: Tensor, *, channels: int, window: Window, last: bool) -> Tensor:
    """A convolution of one group; weights (tiles, kernel height, kernel width, inputs, tile)."""
    from tvm import te

    tiles, *_, tile = (int(n) for n in weights.shape)
    batch, height, width = _extents(x, last)
    out_height, out_width = window.out(height, width)
    read = _reader(_pad(x, window, last), last)
    ky = te.reduce_axis((0, window.kernel[0]), name="ky")
    kx = te.reduce_axis((0, window.kernel[1]), name="kx")
    k = te.reduce_axis((0, channels), name="k")
    (sy, sx), (dy, dx) = window.stride, window.dilation
    return te.compute(
        (batch, out_height, out_width, tiles * tile),
        lambda n, y, x_, o: te.sum(
            read(n, y * sy + ky * dy, x_ * sx + kx * dx, k) * weights[o // tile, ky, kx, k, o % tile],
            axis=[ky, kx, k],
        ),
        name="last_conv",
    )


def depthwise(x: Tensor, weights: Tensor, *, window: Window) -> Tensor:
    """A convolution of as many groups as channels; x with channels last, weights (kernel height, width, channels)."""
    from tvm import te

    batch, height, width = _extents(x, last=True)
    out_height, out_width = window.out(height, width)
    padded = _pad(x, window, last=True)
    ky = te.reduce_axis((0, window.kernel[0]), name="ky")
    kx = te.reduce_axis((0, window.kernel[1]), name="kx")
    (sy, sx), (dy, dx) = window.stride, window.dilation
    return te.compute(
        (batch, out_height, out_width, x.shape[3]),
        lambda n, y, x_, c: te.sum(
            padded[n, y * sy + ky * dy, x_ * sx + kx * dx, c] * weights[ky, kx, c], axis=[ky, kx]
        ),
        name="last_depthwise",
    )


def pool(x: Tensor, *, keep: bool) -> Tensor:
    """The mean over height and width, (n, h, w, c) -> (n, 1, 1, c) or (n, c)."""
    from tvm import te, tirx

    batch, height, width = _extents(x, last=True)
    y = te.reduce_axis((0, height), name="y")
    x_ = te.reduce_axis((0, width), name="x")
    channels = x.shape[3]
    shape = (batch, 1, 1, channels) if keep else (batch, channels)
    total = te.compute(shape, lambda *i: te.sum(x[i[0], y, x_, i[-1]], axis=[y, x_]), name="last_pool")
    share = tirx.const(1.0 / (height * width), "float32")
    return te.compute(total.shape, lambda *i: total(*i) * share, name="share")


def enter(x: Tensor, *, padded: int) -> Tensor:
    """(n, c, h, w) -> (n, h, w, padded)."""
    from tvm import te, tirx

    batch, channels, height, width = (int(n) for n in x.shape)
    if padded == channels:
        return te.compute((batch, height, width, padded), lambda n, i, j, c: x[n, c, i, j], name="last_enter")
    zero = tirx.const(0.0, "float32")
    return te.compute(
        (batch, height, width, padded),
        lambda n, i, j, c: tirx.if_then_else(c < channels, x[n, tirx.min(c, channels - 1), i, j], zero),
        name="last_enter",
    )


def leave(x: Tensor, *, channels: int) -> Tensor:
    """(n, h, w, padded) -> (n, channels, h, w), or (n, padded) -> (n, channels)."""
    from tvm import te

    if len(x.shape) == 2:
        return te.compute((x.shape[0], channels), lambda n, c: x[n, c], name="last_leave")
    batch, height, width = _extents(x, last=True)
    return te.compute((batch, channels, height, width), lambda n, c, i, j: x[n, i, j, c], name="last_leave")


def _extents(x: Tensor, last: bool) -> tuple[int, int, int]:
    shape = [int(n) for n in x.shape]
    return (shape[0], shape[1], shape[2]) if last else (shape[0], shape[2], shape[3])


def _reader(x: Tensor, last: bool) -> Callable[[Any, Any, Any, Any], Any]:
    return (lambda n, i, j, c: x[n, i, j, c]) if last else (lambda n, i, j, c: x[n, c, i, j])


def _pad(x: Tensor, window: Window, last: bool) -> Tensor:
    from tvm import te, tirx

    top, left, bottom, right = window.padding
    if not any(window.padding):
        return x
    batch, height, width = _extents(x, last)
    channels = int(x.shape[3 if last else 1])
    read = _reader(x, last)
    zero = tirx.const(0.0, "float32")

    def inside(n: Any, i: Any, j: Any, c: Any) -> Any:
        held = tirx.all(i >= top, i < height + top, j >= left, j < width + left)
        return tirx.if_then_else(held, read(n, i - top, j - left, c), zero)

    tall, wide = height + top + bottom, width + left + right
    if last:
        return te.compute((batch, tall, wide, channels), inside, name="last_border")
    return te.compute((batch, channels, tall, wide), lambda n, c, i, j: inside(n, i, j, c), name="last_border")
