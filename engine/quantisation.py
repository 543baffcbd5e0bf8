"""Quantisation after training: weights in a few bits a number, activations in calibrated ranges.

Weights are symmetric and have a scale an output channel, activations are affine and have a range a tensor. What runs in
torch is a simulation in floats of integer arithmetic with 32-bit accumulators; exported to ONNX it is that arithmetic.
A layer knows the size of its weights: they are held packed, so that parameters and buffers weigh what they would weigh.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hwnas.latency.block import Block, block_factory

FLOAT_BITS = 32
# Fractions of the largest weight of a channel at which it is clipped; the one with the least squared error is taken.
# At 8 bits that is nearly always 1, at 2 and 3 bits the largest weight would cost all others their resolution.
_CLIPS = tuple(i / 20 for i in range(6, 21))


class QuantisedExportError(RuntimeError):
    """A quantised layer that is asked for in floats."""


def quantise_weight(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(codes, scale): int8 codes of the shape of `weight`, (o, ...), and a scale an output channel, (o,).

    Codes lie in -(2^(bits-1) - 1) to 2^(bits-1) - 1; code * scale is the weight. Raises ValueError for other bits than
    2 to 8.
    """
    _check_bits(bits)
    most = 2 ** (bits - 1) - 1
    rows = weight.detach().flatten(1)
    largest = rows.abs().amax(1).clamp_min(1e-12)
    scales = torch.stack([largest * clip / most for clip in _CLIPS])  # (clips, o)
    codes = (rows / scales[..., None]).round().clamp(-most, most)  # (clips, o, numbers)
    errors = (codes * scales[..., None] - rows).square().sum(-1)
    best = errors.argmin(0)
    channels = torch.arange(len(rows))
    return codes[best, channels].to(torch.int8).reshape(weight.shape), scales[best, channels]


def pack(codes: Tensor, bits: int) -> Tensor:
    """int8 codes, flattened, in `bits` bits each: uint8 of ceil(numbers * bits / 8) bytes."""
    offset = codes.flatten().to(torch.int64) + 2 ** (bits - 1)
    stream = (offset[:, None] >> torch.arange(bits)) & 1
    stream = F.pad(stream.flatten(), (0, -stream.numel() % 8)).reshape(-1, 8)
    return (stream << torch.arange(8)).sum(1).to(torch.uint8)


def unpack(packed: Tensor, bits: int, shape: torch.Size) -> Tensor:
    """The int8 codes of `shape` that `pack` put together."""
    stream = (packed[:, None].to(torch.int64) >> torch.arange(8)) & 1
    offset = (stream.flatten()[: shape.numel() * bits].reshape(-1, bits) << torch.arange(bits)).sum(1)
    return (offset - 2 ** (bits - 1)).to(torch.int8).reshape(shape)


class ActivationRange(_BatchNorm):
    """Quantises what passes to `bits` bits of an affine range that holds 0.

    In training mode it widens the range to what passes. It is a BatchNorm to whatever calibrates statistics, because it
    has to be calibrated at the same time by the same images: `recalibrate`, and networks that share prefixes.
    """

    low: Tensor
    high: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(1, affine=False, track_running_stats=False)
        _check_bits(bits)
        self.bits = bits
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def reset_running_stats(self) -> None:
        """Forget the range."""
        if "low" in self._buffers:  # BatchNorm's constructor resets before there is anything
            self.low.zero_()
            self.high.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        if self.training:
            self.low.copy_(torch.minimum(self.low, x.detach().amin()))
            self.high.copy_(torch.maximum(self.high, x.detach().amax()))
        scale, zero = self.affine_code()
        return ((x / scale + zero).round().clamp(0, 2**self.bits - 1) - zero) * scale

    def affine_code(self) -> tuple[Tensor, Tensor]:
        """(scale, the code of 0), both scalar floats; code = x / scale + zero. An empty range has the scale 1."""
        width = self.high - self.low
        scale = torch.where(width > 0, width, float(2**self.bits - 1)) / (2**self.bits - 1)
        return scale, (-self.low / scale).round()


class QuantisedLayer(nn.Module):
    """A Conv2d or Linear with packed weights and a quantised input, and the BatchNorm behind it where it has one."""

    packed: Tensor
    scale: Tensor

    def __init__(
        self, layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None, *, bits: int, activation_bits: int
    ) -> None:
        super().__init__()
        _check_bits(bits)
        self.bits, self.shape = bits, layer.weight.shape
        self.window = (layer.stride, layer.padding, layer.dilation, layer.groups) if layer.weight.dim() == 4 else None
        self.counts = layer.weight.is_meta  # made to be counted, not to be run
        size = -(-self.shape.numel() * bits // 8)
        if self.counts:
            self.register_buffer("packed", torch.empty(size, dtype=torch.uint8, device="meta"))
            self.register_buffer("scale", torch.empty(self.shape[0], device="meta"))
        else:
            codes, scale = quantise_weight(layer.weight, bits)
            self.register_buffer("packed", pack(codes, bits))
            self.register_buffer("scale", scale)
        self.bias = layer.bias
        self.range = ActivationRange(activation_bits).to(layer.weight.device)
        self.norm = norm
        self._unpack()

    def _unpack(self) -> None:
        """Keep codes and weight beside what is packed: neither state nor size, and constants of an export."""
        if self.counts:
            self.codes, self.weight = (torch.empty(self.shape, dtype=t, device="meta") for t in (torch.int8, None))
        else:
            self.codes = unpack(self.packed, self.bits, self.shape)
            self.weight = self.codes * self.scale.reshape(-1, *[1] * (len(self.shape) - 1))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._unpack()

    def forward(self, x: Tensor) -> Tensor:
        """As the layer that it was made of."""
        if isinstance(x, torch.fx.Proxy):
            raise TypeError("a quantised layer is exported as it is: its BatchNorm is folded into its scales")
        if torch.onnx.is_in_onnx_export():
            return _integers(self, x)
        if (x.is_meta and not self.counts) or torch.compiler.is_exporting():
            raise QuantisedExportError(
                f"a layer quantised to {self.bits} bits runs here as a simulation in floats, whose time is not that of "
                "integers: give the device runtime = 'onnxruntime', which runs it in int8"
            )
        x = self.range(x)
        if self.window is None:
            y = F.linear(x, self.weight, self.bias)
        else:
            y = F.conv2d(x, self.weight, self.bias, *self.window)
        return y if self.norm is None else self.norm(y)


def _integers(layer: QuantisedLayer, x: Tensor) -> Tensor:
    """The layer in ONNX's integer operators; their 32-bit sums are scaled to floats with BatchNorm folded in."""
    op = torch.onnx.ops.symbolic
    scale, zero = layer.range.affine_code()
    code = zero.to(torch.uint8)
    integers = op("QuantizeLinear", (x, scale, code), dtype=torch.uint8, shape=x.shape, version=13)
    codes, out = layer.codes, scale * layer.scale
    offset = torch.zeros_like(out) if layer.bias is None else layer.bias
    if layer.norm is not None:
        mean, var = layer.norm.running_mean, layer.norm.running_var
        assert mean is not None
        assert var is not None
        gain = layer.norm.weight / (var + layer.norm.eps).sqrt()
        out, offset = out * gain, (offset - mean) * gain + layer.norm.bias
    if layer.window is None:
        shape = (*x.shape[:-1], layer.shape[0])
        # ONNX has no transposed product of integers, so the codes are turned now
        weight = codes.T.contiguous()
        total = op("MatMulInteger", (integers, weight, code), dtype=torch.int32, shape=shape, version=10)
        return total.to(torch.float32) * out + offset
    stride, padding, dilation, groups = layer.window
    assert not isinstance(padding, str)
    kernel = layer.shape[2:]
    size = [(x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    attributes: dict[str, Any] = {
        "strides": list(stride),
        "pads": [*padding, *padding],
        "dilations": list(dilation),
        "group": groups,
        "kernel_shape": list(kernel),
    }
    shape = (x.shape[0], layer.shape[0], *size)
    total = op("ConvInteger", (integers, codes, code), attrs=attributes, dtype=torch.int32, shape=shape, version=10)
    return total.to(torch.float32) * out[:, None, None] + offset[:, None, None]


def quantised(network: nn.Module, *, bits: int, activation_bits: int = 8) -> nn.Module:
    """A copy with every Conv2d and Linear quantised, each with the BatchNorm2d that follows it in an nn.Sequential.

    In evaluation mode; its activation ranges are empty until they are calibrated (`recalibrate`). A copy of a layer
    with per-channel scales has the codes that the layer would have with its BatchNorm folded in, as that only
    multiplies channels.
    """
    network = copy.deepcopy(network).eval()
    if type(network) in _LAYERS:
        return QuantisedLayer(network, None, bits=bits, activation_bits=activation_bits).eval()  # type: ignore[arg-type]  # just asked
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for index, (name, child) in enumerate(children):
            if type(child) not in _LAYERS or isinstance(parent, QuantisedLayer):
                continue
            behind = children[index + 1] if isinstance(parent, nn.Sequential) and index + 1 < len(children) else None
            norm = behind[1] if behind is not None and type(behind[1]) is nn.BatchNorm2d else None
            setattr(parent, name, QuantisedLayer(child, norm, bits=bits, activation_bits=activation_bits))  # type: ignore[arg-type]  # one of _LAYERS
            if behind is not None and norm is not None:
                setattr(parent, behind[0], nn.Identity())
    return network.eval()


_LAYERS = (nn.Conv2d, nn.Linear)


def quantisable(network: nn.Module) -> bool:
    """Whether there is anything in it that `quantised` changes."""
    return any(type(module) in _LAYERS for module in network.modules())


@block_factory("quantised.block")
def quantised_block(*, block: str, bits: int, activation_bits: int) -> nn.Module:
    """The block whose JSON text is given, quantised."""
    network = Block.from_json(json.loads(block)).recipe()()
    return quantised(network, bits=bits, activation_bits=activation_bits)


def block_of(block: Block, *, bits: int, activation_bits: int) -> Block:
    """The same block with its weights in `bits` bits; itself at 32."""
    if bits == FLOAT_BITS:
        return block
    text = json.dumps(block.to_json(), sort_keys=True)
    return Block.of("quantised.block", *block.inputs, block=text, bits=bits, activation_bits=activation_bits)


def _check_bits(bits: int) -> None:
    if not 2 <= bits <= 8:
        raise ValueError(f"{bits} bits: give 2 to 8, or leave the layer in floats")
