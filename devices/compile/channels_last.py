"""Rewrite an imported network to channels last, so that vectors are full whatever the height and width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hwnas.devices.compile import kernels
from hwnas.devices.compile.kernels import Floats, Window
from hwnas.devices.compile.tiles import Machine

Expr = Any  # relax.Expr

_UNARY = {f"relax.{name}" for name in ("nn.relu", "sigmoid", "tanh", "nn.silu", "exp", "abs", "negative", "sqrt")}
_BINARY = {f"relax.{name}" for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum")}
_NUMPY: dict[str, Callable[..., Any]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
    "relax.sqrt": np.sqrt,
    "relax.negative": np.negative,
    "relax.rsqrt": lambda x: 1 / np.sqrt(x),
}


@dataclass(frozen=True, slots=True)
class _Value:
    """A tensor of the network: its torch shape, and where it lies now."""

    shape: tuple[int, ...]
    expr: Expr = None
    array: Floats | None = None  # a constant
    last: bool = False  # channels last and padded
    clip: tuple[_Value, float, float] | None = None  # what it clips, and the bounds


def channels_last(module: Any, machine: Machine) -> Any:
    """The relax module with its `main` rewritten; one that is no straight-line code comes back as it is."""
    import tvm
    from tvm import relax

    main = module["main"]
    blocks = list(main.body.blocks) if isinstance(main.body, relax.SeqExpr) else []
    bindings = [binding for block in blocks for binding in block.bindings]
    branches = (relax.If, relax.Function)
    straight = all(isinstance(b, relax.VarBinding) and not isinstance(b.value, branches) for b in bindings)
    if not straight or not _static(main):
        return module
    others = {name: function for name, function in module.functions.items() if str(name.name_hint) != "main"}
    builder = relax.BlockBuilder(tvm.IRModule(others))
    rewriter = _Rewriter(builder, machine)
    params = [relax.Var(p.name, p.ty) for p in main.params]
    with builder.function("main", params, attrs=dict(main.attrs) if main.attrs else None):
        for old, new in zip(main.params, params, strict=True):
            rewriter.bind(old, new)
        with builder.dataflow():
            for binding in bindings:
                rewriter.visit(binding.var, binding.value)
            result = builder.emit_output(rewriter.leave(main.body.body))
        builder.emit_func_output(result)
    return builder.get()


def _static(main: Any) -> bool:
    return all(_shape(p) is not None for p in main.params)


def _shape(expr: Expr) -> tuple[int, ...] | None:
    shape = getattr(expr.ty, "shape", None)
    if shape is None:
        return None
    try:
        return tuple(int(n) for n in shape)
    except TypeError:
        return None


class _Rewriter:
    def __init__(self, builder: Any, machine: Machine) -> None:
        self.builder = builder
        self.machine = machine
        self.values: dict[Any, _Value] = {}
        self.others: dict[Any, Expr] = {}  # tuples and whatever else is no tensor

    def bind(self, var: Expr, expr: Expr) -> None:
        shape = _shape(expr)
        if shape is None:
            self.others[var] = expr
        else:
            self.values[var] = _Value(shape, expr)

    def visit(self, var: Expr, value: Expr) -> None:
        """Bind `var` to the rewritten `value`."""
        from tvm import ir, relax

        if isinstance(value, ir.GenericConst):
            self.values[var] = self._read(value) or _Value(_shape(value) or (), value)
            return
        if isinstance(value, relax.Var):
            self._alias(var, value)
            return
        if isinstance(value, ir.Call) and isinstance(value.op, ir.Op):
            result = self._call(value)
            if result is not None:
                self.values[var] = result
                return
        self.bind(var, self.builder.emit(self.leave(value)))

    def _alias(self, var: Expr, value: Expr) -> None:
        if value in self.values:
            self.values[var] = self.values[value]
        else:
            self.others[var] = self.others[value]

    def leave(self, expr: Expr) -> Expr:
        """`expr` over values that lie as torch has them."""
        from tvm import ir, relax

        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.leave(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self.leave(expr.tuple_value), expr.index)
        if isinstance(expr, ir.Call):
            return ir.Call(expr.op, [self.leave(a) for a in expr.args], expr.attrs, expr.ty_args)
        if isinstance(expr, relax.Var):
            return self._plain(self.values[expr]) if expr in self.values else self.others[expr]
        return expr

    def _read(self, expr: Expr) -> _Value | None:
        from tvm import ir, relax

        if isinstance(expr, ir.GenericConst) and hasattr(expr.value, "numpy"):
            array = expr.value.numpy()
            return _Value(array.shape, expr, array) if array.dtype == np.float32 else _Value(array.shape, expr)
        return self.values.get(expr) if isinstance(expr, relax.Var) else None

    def _call(self, call: Any) -> _Value | None:
        """The rewritten result, or None for a call that must see torch's layout."""
        name = str(call.op.name)
        tensors = [value for value in map(self._read, call.args) if value is not None]
        if not tensors or any(getattr(v.expr, "ty", None) is not None and not _is_float(v) for v in tensors):
            return None
        if all(v.array is not None for v in tensors):
            return self._fold(name, call, tensors)
        rule = self._rule(name)
        return rule(call, tensors) if rule is not None else None

    def _rule(self, name: str) -> Callable[[Any, list[_Value]], _Value | None] | None:
        if name in _UNARY:
            return self._unary
        if name in _BINARY:
            return self._binary
        return {
            "relax.nn.conv2d": self._conv,
            "relax.matmul": self._linear,
            "relax.mean": self._mean,
            "relax.nn.adaptive_avg_pool2d": self._mean_to_point,
            "relax.reshape": self._reshape,
            "relax.clip": self._clip,
        }.get(name)

    def _emit(self, expr: Expr, shape: tuple[int, ...]) -> _Value:
        return _Value(shape, self.builder.emit(expr), last=True)

    def _te(self, kernel: Callable[..., Any], shape: tuple[int, ...], *args: Any) -> _Value:
        exprs = [_const(a) if isinstance(a, np.ndarray) else a for a in args]
        name = kernel.func.__name__ if isinstance(kernel, partial) else kernel.__name__
        return _Value(shape, self.builder.emit_te(kernel, *exprs, primfunc_name_hint=f"last_{name}"), last=True)

    def _plain(self, value: _Value) -> Expr:
        if not value.last:
            return value.expr if value.expr is not None else _const(value.array)
        return self._te(partial(kernels.leave, channels=value.shape[1]), value.shape, value.expr).expr

    def _last(self, value: _Value) -> _Value:
        if value.last:
            return value
        kernel = partial(kernels.enter, padded=self.machine.padded(value.shape[1]))
        return self._te(kernel, value.shape, value.expr)

    def _fold(self, name: str, call: Any, tensors: list[_Value]) -> _Value | None:
        arrays = [v.array for v in tensors]
        shape = _shape(call)
        if name == "relax.permute_dims":
            axes = [int(a) for a in call.attrs.axes] if call.attrs.axes is not None else None
            result = np.transpose(arrays[0], axes)  # type: ignore[arg-type]  # every array is held
        elif name in ("relax.reshape", "relax.expand_dims") and shape is not None:
            result = np.reshape(arrays[0], shape)  # type: ignore[arg-type]  # every array is held
        elif name in _NUMPY:
            result = _NUMPY[name](*arrays)
        else:
            return None
        result = np.ascontiguousarray(result, np.float32)
        return _Value(result.shape, _const(result), result)

    def _conv(self, call: Any, tensors: list[_Value]) -> _Value | None:
        x, weight = tensors
        attrs = call.attrs
        shape = _shape(call)
        known = (str(attrs.data_layout), str(attrs.kernel_layout)) == ("NCHW", "OIHW")
        if not known or weight.array is None or shape is None:
            return None
        window = Window(
            kernel=(weight.shape[2], weight.shape[3]),
            stride=_pair(attrs.strides),
            padding=tuple(int(p) for p in attrs.padding),  # type: ignore[arg-type]  # relax writes four
            dilation=_pair(attrs.dilation),
        )
        outputs, channels = weight.shape[:2]
        if int(attrs.groups) == outputs == x.shape[1] and channels == 1:
            packed = kernels.pad_channels(weight.array[:, 0].transpose(1, 2, 0), self.machine.padded(outputs))
            return self._te(partial(kernels.depthwise, window=window), shape, self._last(x).expr, packed)
        if int(attrs.groups) != 1:
            return None
        if window.is_point:
            packed = self._pack(weight.array[:, :, 0, 0].T, shape[2], shape[3])
            return self._te(partial(kernels.pointwise, channels=channels, last=x.last), shape, x.expr, packed)
        packed = self._pack(weight.array.transpose(2, 3, 1, 0), shape[2], shape[3])
        kernel = partial(kernels.conv, channels=channels, window=window, last=x.last)
        return self._te(kernel, shape, x.expr, packed)

    def _pack(self, weights: Floats, height: int, width: int) -> Floats:
        padded = self.machine.padded(weights.shape[-1])
        return kernels.pack(weights, self.machine.columns(height, width, padded), padded)

    def _linear(self, call: Any, tensors: list[_Value]) -> _Value | None:
        del call
        x, weight = tensors
        if weight.array is None or weight.array.ndim != 2 or len(x.shape) != 2:
            return None
        channels, outputs = weight.shape
        packed = self._pack(weight.array, 1, x.shape[0])
        kernel = partial(kernels.pointwise, channels=channels, last=x.last)
        return self._te(kernel, (x.shape[0], outputs), x.expr, packed)

    def _mean(self, call: Any, tensors: list[_Value]) -> _Value | None:
        (x,) = tensors
        axes = sorted(int(a) % len(x.shape) for a in call.attrs.axis or ())
        if len(x.shape) != 4 or axes != [2, 3]:
            return None
        return self._pool(x, keep=bool(call.attrs.keepdims))

    def _mean_to_point(self, call: Any, tensors: list[_Value]) -> _Value | None:
        (x,) = tensors
        return self._pool(x, keep=True) if _shape(call) == (*x.shape[:2], 1, 1) else None

    def _pool(self, x: _Value, *, keep: bool) -> _Value:
        shape = (*x.shape[:2], 1, 1) if keep else x.shape[:2]
        return self._te(partial(kernels.pool, keep=keep), shape, self._last(x).expr)

    def _reshape(self, call: Any, tensors: list[_Value]) -> _Value | None:
        from tvm import relax

        (x,) = tensors
        shape = _shape(call)
        flat, tall = x.shape[:2], (*x.shape[:2], 1, 1)
        if not x.last or shape not in (flat, tall) or x.shape not in (flat, tall):
            return None
        padded = self.machine.padded(x.shape[1])
        new = (shape[0], padded) if shape == flat else (shape[0], 1, 1, padded)
        return self._emit(relax.op.reshape(x.expr, new), shape)

    def _unary(self, call: Any, tensors: list[_Value]) -> _Value | None:
        (x,) = tensors
        return self._emit(_again(call, [x.expr]), x.shape) if x.last else None

    def _clip(self, call: Any, tensors: list[_Value]) -> _Value | None:
        """A clip; torch writes hard sigmoids as one clip upon another, and the two are one."""
        from tvm import relax

        (x,) = tensors
        if not x.last:
            return None
        low, high = (float(a.value) for a in call.args[1:])
        source = x
        if x.clip is not None and max(low, x.clip[1]) <= min(high, x.clip[2]):
            source, low, high = x.clip[0], max(low, x.clip[1]), min(high, x.clip[2])
        made = self._emit(relax.op.clip(source.expr, low, high), x.shape)
        return _Value(made.shape, made.expr, last=True, clip=(source, low, high))

    def _binary(self, call: Any, pair: list[_Value]) -> _Value | None:
        name, shape = str(call.op.name), _shape(call)
        lasting = [v for v in pair if v.last]
        # an operand that came with channels first is read as it lies, and the result stays so
        if len(pair) != 2 or not lasting or shape is None or any(v.array is None and not v.last for v in pair):
            return None
        if any(len(v.shape) != len(shape) or v.shape[1] != shape[1] for v in lasting):
            return None
        fill = 1.0 if name == "relax.divide" else 0.0
        exprs = [v.expr if v.array is None else self._operand(v.array, len(shape), fill) for v in pair]
        divisor = pair[1].array
        if name == "relax.divide" and divisor is not None and divisor.size == 1:
            from tvm import relax

            return self._emit(relax.op.multiply(exprs[0], _const(np.float32(1) / divisor)), shape)
        return self._emit(_again(call, exprs), shape)

    def _operand(self, array: Floats, rank: int, fill: float) -> Expr:
        if array.size == 1:
            return _const(array.reshape(()))
        full = array.reshape((1,) * (rank - array.ndim) + array.shape)
        last = np.moveaxis(full, 1, -1)
        if last.shape[-1] > 1:
            last = kernels.pad_channels(last, self.machine.padded(last.shape[-1]), fill)
        return _const(np.ascontiguousarray(last))


def _again(call: Any, args: list[Expr]) -> Expr:
    """The same operator on other tensors; its result type is inferred anew."""
    from tvm import ir

    return ir.Call(call.op, args, call.attrs, call.ty_args)


def _is_float(value: _Value) -> bool:
    return str(getattr(value.expr.ty, "dtype", "")) == "float32"


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(v) for v in values)
    return first, second


def _const(array: Any) -> Expr:
    from tvm import relax

    return relax.const(np.asarray(array, np.float32))
