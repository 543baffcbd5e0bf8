"""Quantisation after training: weights in a few bits a number, activations in calibrated ranges.

Weights are symmetric and have a scale an output channel, activations are affine and have a range a tensor. What runs
in torch is a simulation in floats of integer arithmetic; exported to ONNX, a runtime does that arithmetic. Weights are
held packed, so that a layer's parameters and buffers weigh what they would weigh.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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
    octets: Tensor = (stream << torch.arange(8)).sum(1).to(torch.uint8)
    return octets


def unpack(packed: Tensor, bits: int, shape: torch.Size) -> Tensor:
    """The int8 codes of `shape` that `pack` put together."""
    stream = (packed[:, None].to(torch.int64) >> torch.arange(8)) & 1
    offset = (stream.flatten()[: shape.numel() * bits].reshape(-1, bits) << torch.arange(bits)).sum(1)
    codes: Tensor = (offset - 2 ** (bits - 1)).to(torch.int8).reshape(shape)
    return codes


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
        if x.is_meta:  # only counted: torch has no shape rule for the operator below
            return x
        if self.training:
            self.low.copy_(torch.minimum(self.low, x.detach().amin()))
            self.high.copy_(torch.maximum(self.high, x.detach().amax()))
        scale, zero = self.affine_code()
        return torch.fake_quantize_per_tensor_affine(x, scale, zero.to(torch.int32), 0, 2**self.bits - 1)

    def affine_code(self) -> tuple[Tensor, Tensor]:
        """(scale, the code of 0), both scalar floats; code = x / scale + zero. An empty range has the scale 1."""
        width = self.high - self.low
        scale = torch.where(width > 0, width, float(2**self.bits - 1)) / (2**self.bits - 1)
        return scale, (-self.low / scale).round()


@dataclass(frozen=True, slots=True)
class _Window:
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, conv: nn.Conv2d) -> _Window:
        if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
            raise ValueError(f"{conv}: a quantised convolution pads by numbers of zeros: write its padding so")
        return cls(_pair(conv.stride), _pair(conv.padding), _pair(conv.dilation), conv.groups)


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    height, width = sizes
    return height, width


class QuantisedLayer(nn.Module):
    """A Conv2d or Linear with packed weights and a quantised input, and what is folded into it: BatchNorm and ReLU.

    What a convolution makes is quantised too, as integer kernels write integers; what a Linear makes is not.
    """

    packed: Tensor
    scale: Tensor

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        norm: nn.BatchNorm2d | None = None,
        act: nn.ReLU | None = None,
        *,
        bits: int,
        activation_bits: int,
    ) -> None:
        super().__init__()
        _check_bits(bits)
        self.bits, self.shape = bits, layer.weight.shape
        self.window = _Window.of(layer) if isinstance(layer, nn.Conv2d) else None
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
        self.norm, self.act = norm, act
        device = layer.weight.device
        self.range = ActivationRange(activation_bits).to(device)
        self.out_range = None if self.window is None else ActivationRange(activation_bits).to(device)
        self._unpack()

    def _unpack(self) -> None:
        """Keep codes and weight beside what is packed: neither state nor size, and constants of an export."""
        if self.counts:
            self.codes, self.weight = (torch.empty(self.shape, dtype=t, device="meta") for t in (torch.int8, None))
        else:
            self.codes = unpack(self.packed, self.bits, self.shape)
            self.weight = self.codes * self._a_channel(self.scale)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._unpack()

    def _a_channel(self, values: Tensor) -> Tensor:
        """(o,) in the shape that multiplies the weight channel by channel."""
        return values.reshape(-1, *[1] * (len(self.shape) - 1))

    def forward(self, x: Tensor) -> Tensor:
        """As the layer that it was made of."""
        if not isinstance(x, Tensor):  # torch.fx traces with proxies, and would take the simulation for the layer
            raise TypeError("a quantised layer is exported as it is: its BatchNorm is folded into its scales")
        if torch.onnx.is_in_onnx_export():
            return self._integers(x)
        if (x.is_meta and not self.counts) or torch.compiler.is_exporting():
            raise QuantisedExportError(
                f"a layer quantised to {self.bits} bits runs here as a simulation in floats, whose time is not that of "
                "integers: give the device runtime = 'onnxruntime', which runs it in int8"
            )
        y = self._product(self.range(x), self.weight, self.bias)
        y = y if self.norm is None else self.norm(y)
        y = y if self.act is None else self.act(y)
        return y if self.out_range is None else self.out_range(y)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.window is None:
            return F.linear(x, weight, bias)
        window = self.window
        return F.conv2d(x, weight, bias, window.stride, window.padding, window.dilation, window.groups)

    def _integers(self, x: Tensor) -> Tensor:
        """The layer for ONNX: what is integer between a QuantizeLinear and a DequantizeLinear, runtimes fuse.

        The bias has 32 bits and the scale of the sums, as integer kernels want it: all that the simulation rounds less.
        """
        scale, _ = self.range.affine_code()
        scales, codes = self.scale, self.codes
        bias = torch.zeros_like(scales) if self.bias is None else self.bias
        if self.norm is not None:
            mean, var = self.norm.running_mean, self.norm.running_var
            assert mean is not None
            assert var is not None
            gain = self.norm.weight / (var + self.norm.eps).sqrt()
            bias = (bias - mean) * gain + self.norm.bias
            # scales are positive in ONNX: a negative gain turns the codes
            codes = (codes * self._a_channel(torch.where(gain < 0, -1, 1))).to(torch.int8)
            scales = scales * gain.abs().clamp_min(1e-12)
        sums = scales * scale
        whole = (bias / sums).round().clamp(-(2.0**31) + 256, 2.0**31 - 256).to(torch.int32)
        y = self._product(_exchanged(x, self.range), _dequantised(codes, scales), _dequantised(whole, sums))
        y = y if self.act is None else self.act(y)
        return y if self.out_range is None else _exchanged(y, self.out_range)


def _dequantised(codes: Tensor, scales: Tensor) -> Tensor:
    arguments = (codes, scales, torch.zeros_like(codes.flatten(1)[:, 0] if codes.dim() > 1 else codes))
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", arguments, attrs={"axis": 0}, dtype=torch.float32, shape=codes.shape, version=13
    )


def _exchanged(x: Tensor, limits: ActivationRange) -> Tensor:
    """To the codes of a range and back."""
    scale, zero = limits.affine_code()
    code = zero.to(torch.uint8)
    op = torch.onnx.ops.symbolic
    integers = op("QuantizeLinear", (x, scale, code), dtype=torch.uint8, shape=x.shape, version=13)
    return op("DequantizeLinear", (integers, scale, code), dtype=torch.float32, shape=x.shape, version=13)


def is_quantised(network: nn.Module) -> bool:
    """Whether some layer of it is a simulation of integers."""
    return any(isinstance(module, QuantisedLayer) for module in network.modules())


def quantised(network: nn.Module, *, bits: int, activation_bits: int = 8) -> nn.Module:
    """A copy with every Conv2d and Linear quantised, with the BatchNorm2d and ReLU behind it in an nn.Sequential.

    In evaluation mode; its activation ranges are empty until they are calibrated (`recalibrate`). With scales a channel
    the codes are those that a layer would have with its BatchNorm folded in, as that only multiplies channels.
    """
    return quantise_(copy.deepcopy(network), bits=bits, activation_bits=activation_bits)


def quantise_(network: nn.Module, *, bits: int, activation_bits: int = 8) -> nn.Module:
    """`quantised` without the copy: what is answered holds the modules of `network`, which is used up."""
    if type(network) in _LAYERS:
        return QuantisedLayer(network, bits=bits, activation_bits=activation_bits).eval()  # type: ignore[arg-type]  # one of them
    for parent in list(network.modules()):
        if isinstance(parent, QuantisedLayer):
            continue
        children = list(parent.named_children())
        for index, (name, child) in enumerate(children):
            if type(child) not in _LAYERS:
                continue
            folded: dict[str, Any] = {}
            for behind, module in children[index + 1 :] if isinstance(parent, nn.Sequential) else ():
                kind = _FOLDED.get(type(module))
                if kind is None or kind in folded or "act" in folded:
                    break
                folded[kind] = module
                setattr(parent, behind, nn.Identity())
            layer = QuantisedLayer(child, **folded, bits=bits, activation_bits=activation_bits)  # type: ignore[arg-type]  # one of them
            setattr(parent, name, layer)
    return network.eval()


_FOLDED: dict[type[nn.Module], str] = {nn.BatchNorm2d: "norm", nn.ReLU: "act"}
_LAYERS = (nn.Conv2d, nn.Linear)


def quantisable(network: nn.Module) -> bool:
    """Whether there is anything in it that `quantised` changes."""
    return any(type(module) in _LAYERS for module in network.modules())


def _check_bits(bits: int) -> None:
    if not 2 <= bits <= 8:
        raise ValueError(f"{bits} bits: give 2 to 8, or leave the layer in floats")
