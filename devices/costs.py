"""What a network costs before it runs: its layers with their shapes, counted once for every user of such figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

Shape = tuple[int, ...]
Kind = Literal["conv", "depthwise", "transposed", "linear", "matmul", "pool", "norm", "elementwise", "copy"]

# Kinds that multiply matrices; the rest has no multiply-accumulates that the field counts.
MULTIPLYING: tuple[Kind, ...] = ("conv", "depthwise", "transposed", "linear", "matmul")


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator of a network, batch included.

    A `linear` layer multiplies by weights, a `matmul` one activation by another; `depthwise` has one input channel a
    group, `pool` is any reduction, `norm` any normalisation that is not folded, `copy` moves numbers and no more.
    """

    kind: Kind
    op: str  # as torch's ATen calls it
    inputs: tuple[Shape, ...]  # of the activations
    weights: tuple[Shape, ...]  # of parameters, buffers and constants
    output: Shape
    macs: int = 0
    kernel: Shape = ()  # of a convolution, as are the rest
    stride: Shape = ()
    padding: Shape = ()
    dilation: Shape = ()
    groups: int = 1
    dtype: str = "float32"
    sources: tuple[int, ...] = ()  # index of the layer that made each input; -1: it came from outside

    @property
    def input_elements(self) -> int:
        """Numbers in the activations that it reads."""
        return sum(map(prod, self.inputs))

    @property
    def weight_elements(self) -> int:
        """Numbers in the weights that it reads."""
        return sum(map(prod, self.weights))

    @property
    def output_elements(self) -> int:
        """Numbers that it writes."""
        return prod(self.output)

    def to_json(self) -> dict[str, Any]:
        """The layer as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Layer:
        """The layer that `to_json` wrote. Raises ValueError, TypeError or KeyError for anything else."""
        if data["kind"] not in get_args(Kind):
            raise ValueError(f"no layer is of kind {data['kind']!r}")
        nested = {name: tuple(tuple(map(int, shape)) for shape in data[name]) for name in ("inputs", "weights")}
        flat = ("output", "kernel", "stride", "padding", "dilation", "sources")
        return cls(**{**data, **nested, **{name: tuple(map(int, data[name])) for name in flat}})


def layers(model: nn.Module, *inputs: Shape) -> tuple[Layer, ...]:
    """Every operator of `model` in inference on inputs of these shapes, in the order of execution.

    Nothing is computed and no weight is read: tensors are shapes alone. A view costs nothing and is left out, and so is
    what depends on weights alone. Raises ValueError for an operator whose work is not known from its shapes.
    """
    training = [module for module in model.modules() if module.training]
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    tensors = {name: _shape_alone(t) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    model.eval()
    try:
        with _plain_operators(), torch.device("meta"):
            examples = tuple(torch.empty(shape, dtype=dtype) for shape in inputs)
            with _Recorder(examples) as recorder:
                functional_call(model, tensors, examples)
    finally:
        for module in training:
            module.training = True
    return tuple(recorder.layers)


def macs(model: nn.Module, *inputs: Shape) -> int:
    """Multiply-accumulates of convolutions, linear layers and matrix products on inputs of these shapes."""
    return sum(layer.macs for layer in layers(model, *inputs))


def params(model: nn.Module) -> int:
    """Parameters, a shared one counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def weight_bytes(model: nn.Module, *, bits: int | None = None) -> int:
    """Bytes of parameters and buffers as they are stored, or at `bits` a number where a device quantises them."""
    tensors = [*model.parameters(), *model.buffers()]
    if bits is None:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return -(-sum(tensor.numel() for tensor in tensors) * bits // 8)


@contextmanager
def _plain_operators() -> Iterator[None]:
    """Attention and recurrent layers as the products they are made of, instead of one fused operator each."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        before = torch.backends.mkldnn.set_flags(_enabled=False)  # type: ignore[no-untyped-call]  # torch's own
        stack.callback(torch.backends.mkldnn.set_flags, _enabled=before[0])
        yield


def _shape_alone(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


_INPUT = -1
_CONSTANT = -2

_COPIES = frozenset(
    (
        "_to_copy",
        "cat",
        "channel_shuffle",
        "clone",
        "col2im",
        "constant_pad_nd",
        "contiguous",
        "copy",
        "copy_",
        "embedding",
        "flip",
        "gather",
        "im2col",
        "index",
        "index_select",
        "pixel_shuffle",
        "pixel_unshuffle",
        "reflection_pad1d",
        "reflection_pad2d",
        "repeat",
        "replication_pad2d",
        "roll",
        "select_scatter",
        "slice_scatter",
        "stack",
        "tril",
        "triu",
        "upsample_nearest1d",
        "upsample_nearest2d",
    )
)
_NORMS = frozenset(
    (
        "_fused_rms_norm",
        "_log_softmax",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "_safe_softmax",
        "_softmax",
        "cudnn_batch_norm",
        "native_batch_norm",
        "native_group_norm",
        "native_layer_norm",
    )
)
_REDUCTIONS = frozenset(
    (
        "amax",
        "amin",
        "argmax",
        "argmin",
        "linalg_vector_norm",
        "logsumexp",
        "max",
        "mean",
        "min",
        "prod",
        "std",
        "sum",
        "var",
    )
)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Sees every ATen operator. A tensor that is neither parameter nor buffer may have numbers: it loses them here."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.layers: list[Layer] = []
        # the tensor is kept beside its origin: an id is only good while its object lives
        self._origin: dict[int, tuple[Tensor, int]] = {id(tensor): (tensor, _INPUT) for tensor in inputs}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = [value for value in _flat((args, kwargs or {})) if isinstance(value, Tensor)]
        args, kwargs = tree_map_only(Tensor, lambda t: t if t.is_meta else _shape_alone(t), (args, kwargs or {}))
        output = func(*args, **kwargs)
        made = [value for value in _flat(output) if isinstance(value, Tensor)]
        origins = [self._origin_of(tensor) for tensor in read]
        flowing = [origin for origin in origins if origin != _CONSTANT]
        if not made:
            return output
        if not flowing:  # what is made from nothing, as a first hidden state, stands for an activation
            origin = _CONSTANT if read else _INPUT
        elif func.is_view or _is_free(func, args):
            origin = flowing[0]
        else:
            self.layers.append(_layer(func, args, read, origins, made[0]))
            origin = len(self.layers) - 1
        self._origin.update({id(tensor): (tensor, origin) for tensor in made})
        return output

    def _origin_of(self, tensor: Tensor) -> int:
        return self._origin.get(id(tensor), (tensor, _CONSTANT))[1]


def _is_free(func: Any, args: Any) -> bool:
    name = _name(func)
    return name in ("_unsafe_view", "lift_fresh") or (name == "clone" and isinstance(args[0], nn.Parameter))


def _name(func: Any) -> str:
    return str(func.overloadpacket.__name__)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    else:
        yield value


def _layer(func: Any, args: Any, read: Sequence[Tensor], origins: Sequence[int], output: Tensor) -> Layer:
    name = _name(func)
    flows = [(tuple(t.shape), origin) for t, origin in zip(read, origins, strict=True) if origin != _CONSTANT]
    weights = tuple(_stored(t) for t, origin in zip(read, origins, strict=True) if origin == _CONSTANT)
    common: dict[str, Any] = {
        "op": name,
        "inputs": tuple(shape for shape, _ in flows),
        "weights": weights,
        "output": tuple(output.shape),
        "dtype": str(output.dtype).removeprefix("torch."),
        "sources": tuple(origin for _, origin in flows),
    }
    if name == "convolution":
        return Layer(**common, **_convolution(args, output))
    if name in _PRODUCTS:
        left, right = (origins[place] for place in _PRODUCTS[name])
        kind: Kind = "linear" if _CONSTANT in (left, right) else "matmul"
        return Layer(kind, **common, macs=output.numel() * int(read[_PRODUCTS[name][0]].shape[-1]))
    if name == "embedding":  # a row a word is read, not the table
        common["weights"] = (tuple(output.shape),)
    return Layer(_plain_kind(func, name, weights), **common)


# The two tensors that are multiplied, by their place among the tensors of the call.
_PRODUCTS = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), (0, 1)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), (1, 2)),
}


def _stored(tensor: Tensor) -> Shape:
    """The shape without the copies that an expanded view only seems to have."""
    return tuple(size if stride else 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _convolution(args: Any, output: Tensor) -> dict[str, Any]:
    source, weight, _, stride, padding, dilation, transposed, _, groups = args
    kernel = tuple(weight.shape[2:])
    # of a transposed convolution every input meets the whole kernel, of a plain one every output does
    anchor, channels = (source, weight.shape[1]) if transposed else (output, weight.shape[1])
    depthwise = groups > 1 and groups == source.shape[1]
    kind: Kind = "transposed" if transposed else "depthwise" if depthwise else "conv"
    return {
        "kind": kind,
        "macs": anchor.numel() * int(channels) * prod(kernel),
        "kernel": kernel,
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "groups": int(groups),
    }


def _plain_kind(func: Any, name: str, weights: Sequence[Shape]) -> Kind:
    if name in _COPIES:
        return "copy"
    if name in _NORMS:
        return "norm"
    if "pool" in name or name in _REDUCTIONS:
        return "pool"
    if torch.Tag.pointwise not in func.tags and any(len(shape) > 1 for shape in weights):
        raise ValueError(
            f"operator {name!r} reads weights of shapes {list(weights)} and its work is not known from them: write it "
            "with convolutions, linear layers or matrix products"
        )
    return "elementwise"
