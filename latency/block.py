"""The unit that a latency table measures: a small network that a registered factory builds from plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

Value = int | float | str | bool
Factory = Callable[..., nn.Module]

_FACTORIES: dict[str, Factory] = {}


def block_factory(name: str) -> Callable[[Factory], Factory]:
    """Register a module-level function as the factory of blocks called `name`.

    A block names its factory instead of carrying code, so that a table read from elsewhere never runs any.
    """

    def register(factory: Factory) -> Factory:
        known = _FACTORIES.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (factory.__module__, factory.__qualname__):
            raise ValueError(f"two factories are called {name!r}: {known.__module__} and {factory.__module__}")
        _FACTORIES[name] = factory
        return factory

    return register


@dataclass(frozen=True, slots=True)
class Block:
    """A factory's name, its keyword arguments and the shapes of its inputs (batch included), frozen and hashable."""

    factory: str
    kwargs: tuple[tuple[str, Value], ...]  # sorted by name
    inputs: tuple[tuple[int, ...], ...]
    dtype: str = "float32"

    @classmethod
    def of(cls, factory: str, *inputs: tuple[int, ...], dtype: str = "float32", **kwargs: Value) -> Block:
        """The block `factory(**kwargs)` on inputs of these shapes."""
        return cls(factory, tuple(sorted(kwargs.items())), inputs, dtype)

    def to_json(self) -> dict[str, Any]:
        """The block as plain JSON values."""
        return {
            "factory": self.factory,
            "kwargs": dict(self.kwargs),
            "inputs": [list(shape) for shape in self.inputs],
            "dtype": self.dtype,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Block:
        """The block that `to_json` wrote."""
        shapes = tuple(tuple(int(n) for n in shape) for shape in data["inputs"])
        return cls(data["factory"], tuple(sorted(data["kwargs"].items())), shapes, data["dtype"])

    @property
    def key(self) -> str:
        """16 hex digits of the block's JSON."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def recipe(self) -> Callable[[], nn.Module]:
        """A picklable call that builds the block, for a compiling process. Raises LookupError."""
        factory = _FACTORIES.get(self.factory)
        if factory is None:
            known = ", ".join(sorted(_FACTORIES)) or "none"
            raise LookupError(
                f"no installed space has registered a block factory {self.factory!r} (known: {known}): "
                "install the space that made this table"
            )
        return partial(factory, **dict(self.kwargs))

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.kwargs)
        shapes = " ".join("x".join(map(str, shape)) for shape in self.inputs)
        return f"{self.factory}({arguments}) on {shapes}"
