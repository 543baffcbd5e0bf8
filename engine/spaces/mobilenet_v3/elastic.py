"""Layers that hold one shared weight and compute with a slice of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.engine.spaces.mobilenet_v3.blocks import ACTIVATIONS, MBConv, SqueezeExcite, squeeze_width


class ElasticNorm(nn.BatchNorm2d):
    """BatchNorm over the first channels of a shared one."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) with any c up to the shared number -> the same shape."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        if self.training:
            self.num_batches_tracked += 1
        # without a momentum the statistics are cumulative averages, as in torch's own layer
        momentum = 1 / max(1, int(self.num_batches_tracked)) if self.momentum is None else self.momentum
        c = x.shape[1]
        return F.batch_norm(
            x,
            self.running_mean[:c],
            self.running_var[:c],
            self.weight[:c],
            self.bias[:c],
            self.training,
            momentum,
            self.eps,
        )

    def copy_to(self, norm: nn.BatchNorm2d) -> None:
        """Fill a plain BatchNorm with the leading channels."""
        for name, shared in (*self.named_parameters(), *self.named_buffers()):
            own = norm.get_parameter(name) if name in ("weight", "bias") else norm.get_buffer(name)
            own.copy_(shared[: own.shape[0]] if own.dim() else shared)


class ElasticConv(nn.Module):
    """Convolution without bias by the leading output and input channels of one weight."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.stride = stride
        nn.init.kaiming_normal_(self.weight, mode="fan_out")

    def forward(self, x: Tensor, out_channels: int) -> Tensor:
        """(n, c, h, w) -> (n, out_channels, ceil(h / stride), ceil(w / stride))."""
        weight = self.weight[:out_channels, : x.shape[1]]
        return F.conv2d(x, weight, stride=self.stride, padding=weight.shape[-1] // 2)

    def copy_to(self, conv: nn.Conv2d) -> None:
        """Fill a plain convolution with the leading slice."""
        conv.weight.copy_(self.weight[: conv.weight.shape[0], : conv.weight.shape[1]])


class ElasticDepthwise(nn.Module):
    """Depthwise convolution whose small kernels are transformed centres of the next larger one.

    A kernel of k is the centre of the next larger one times a learnt (k*k, k*k) matrix shared by all channels
    (Once-for-All, section 3.3); the matrices begin as identities.
    """

    def __init__(self, channels: int, kernels: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.kernels = kernels  # from small to large
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(channels, 1, kernels[-1], kernels[-1]))
        nn.init.kaiming_normal_(self.weight, mode="fan_out")
        self.transforms = nn.ParameterDict({f"to_{k}": nn.Parameter(torch.eye(k * k)) for k in kernels[:-1]})

    def kernel_weight(self, channels: int, kernel: int) -> Tensor:
        """(channels, 1, kernel, kernel)."""
        weight = self.weight[:channels]
        for k in reversed(self.kernels[:-1]):
            if k < kernel:
                break
            margin = (weight.shape[-1] - k) // 2
            centre = weight[:, :, margin : margin + k, margin : margin + k].reshape(channels, k * k)
            weight = (centre @ self.transforms[f"to_{k}"]).reshape(channels, 1, k, k)
        return weight

    def forward(self, x: Tensor, kernel: int) -> Tensor:
        """(n, c, h, w) -> (n, c, ceil(h / stride), ceil(w / stride))."""
        weight = self.kernel_weight(x.shape[1], kernel)
        return F.conv2d(x, weight, stride=self.stride, padding=kernel // 2, groups=x.shape[1])

    def copy_to(self, conv: nn.Conv2d) -> None:
        """Fill a plain depthwise convolution."""
        conv.weight.copy_(self.kernel_weight(conv.weight.shape[0], conv.weight.shape[-1]))


class ElasticSqueezeExcite(nn.Module):
    """Squeeze-and-excite whose hidden width follows the channels it gates."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        full = SqueezeExcite(channels)
        self.reduce, self.expand = full.reduce, full.expand

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        c = x.shape[1]
        hidden = squeeze_width(c)
        y = F.conv2d(x.mean((2, 3), keepdim=True), self.reduce.weight[:hidden, :c], _bias(self.reduce)[:hidden])
        y = F.conv2d(torch.relu(y), self.expand.weight[:c, :hidden], _bias(self.expand)[:c])
        return x * F.hardsigmoid(y)

    def copy_to(self, se: SqueezeExcite) -> None:
        """Fill a plain one."""
        hidden, c = se.reduce.weight.shape[:2]
        se.reduce.weight.copy_(self.reduce.weight[:hidden, :c])
        _bias(se.reduce).copy_(_bias(self.reduce)[:hidden])
        se.expand.weight.copy_(self.expand.weight[:c, :hidden])
        _bias(se.expand).copy_(_bias(self.expand)[:c])


class ElasticMBConv(nn.Module):
    """MBConv of elastic width, kernel and expansion on shared weights."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int,
        *,
        kernels: tuple[int, ...],
        stride: int,
        se: bool,
        activation: str,
        always_expands: bool,
        ever_expands: bool = True,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.always_expands = always_expands  # no option leaves the expanding convolution out
        self.act = ACTIVATIONS[activation]()
        # weights that no architecture uses would still be trained, kept and digested
        self.expand = ElasticConv(in_channels, hidden) if ever_expands else None
        self.expand_norm = ElasticNorm(hidden) if ever_expands else None
        self.depthwise = ElasticDepthwise(hidden, kernels, stride)
        self.depthwise_norm = ElasticNorm(hidden)
        self.se = ElasticSqueezeExcite(hidden) if se else None
        self.project = ElasticConv(hidden, out_channels)
        self.project_norm = ElasticNorm(out_channels)

    def forward(self, x: Tensor, out_channels: int, hidden: int, kernel: int) -> Tensor:
        """(n, in, h, w) -> (n, out_channels, ceil(h / stride), ceil(w / stride))."""
        y = x
        if self.expand is not None and self.expand_norm is not None and hidden != x.shape[1]:
            y = self.act(self.expand_norm(self.expand(x, hidden)))
        y = self.act(self.depthwise_norm(self.depthwise(y, kernel)))
        if self.se is not None:
            y = self.se(y)
        y = self.project_norm(self.project(y, out_channels))
        out: Tensor = x + y if self.stride == 1 and x.shape[1] == out_channels else y
        return out

    def copy_to(self, block: MBConv) -> None:
        """Fill a plain MBConv."""
        if self.expand is not None and self.expand_norm is not None and block.expand is not None:
            self.expand.copy_to(block.expand.conv)
            self.expand_norm.copy_to(block.expand.norm)
        self.depthwise.copy_to(block.depthwise.conv)
        self.depthwise_norm.copy_to(block.depthwise.norm)
        if self.se is not None and block.se is not None:
            self.se.copy_to(block.se)
        self.project.copy_to(block.project.conv)
        self.project_norm.copy_to(block.project.norm)

    def hidden_importance(self) -> Tensor:
        """L1 norm of what the projection reads from each hidden channel, (hidden,)."""
        return self.project.weight.abs().sum((0, 2, 3))

    def permute_hidden(self, order: Tensor) -> None:
        """Reorder the hidden channels; the full-width function stays the same."""
        if self.expand is not None and self.expand_norm is not None:
            permute(self.expand.weight, order, 0)
            permute_norm(self.expand_norm, order)
        permute(self.depthwise.weight, order, 0)
        permute_norm(self.depthwise_norm, order)
        if self.se is not None:
            permute(self.se.reduce.weight, order, 1)
            permute(self.se.expand.weight, order, 0)
            permute(self.se.expand.bias, order, 0)
        permute(self.project.weight, order, 1)

    def permute_output(self, order: Tensor) -> None:
        """Reorder the output channels."""
        permute(self.project.weight, order, 0)
        permute_norm(self.project_norm, order)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def permute(tensor: Tensor | None, order: Tensor, dim: int) -> None:
    """Reorder `tensor` along `dim` in place."""
    if tensor is not None:
        with torch.no_grad():
            tensor.copy_(tensor.index_select(dim, order))


def permute_norm(norm: nn.BatchNorm2d, order: Tensor) -> None:
    """Reorder the channels of a BatchNorm in place."""
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        permute(tensor, order, 0)
