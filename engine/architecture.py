"""Genes, slots and the populations made of them: what every space is, and all that follows from it.

A population is an integer array `X` of shape (n, genes) of option indices. Everything here works on whole
populations; a single architecture is a tuple of the same integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.latency.block import Block, Value

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Architecture = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Gene:
    """A named choice among finite options.

    `needs` names an earlier gene and the option indices of it that switch this one on; a gene that is off holds
    index 0. `allowed` masks options without re-numbering them, so that architectures of a restricted space are
    architectures of the whole one.
    """

    name: str
    options: tuple[Value, ...]
    needs: tuple[str, frozenset[int]] | None = None
    allowed: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError(f"gene {self.name!r} has no options: give it at least one")
        if len(set(self.options)) != len(self.options):
            raise ValueError(f"gene {self.name!r} has equal options {self.options}: each must be another network")
        if self.allowed is not None and (len(self.allowed) != len(self.options) or not any(self.allowed)):
            raise ValueError(f"gene {self.name!r}: the mask {self.allowed} must allow one of {self.options}")

    @property
    def choices(self) -> IntArray:
        """Indices of the allowed options."""
        return np.arange(len(self.options)) if self.allowed is None else np.flatnonzero(self.allowed)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the network that holds at most one block, decided by the few genes in `scope`."""

    name: str
    scope: tuple[str, ...]
    block: Callable[[Mapping[str, Any]], Block | None]  # option values by gene name -> block


class Supernet(Protocol):
    """A network whose weights are shared by every subnet of a space; also an nn.Module."""

    def activate(self, architecture: Architecture) -> None:
        """Make `forward` compute this architecture."""
        ...

    def subnet(self, architecture: Architecture) -> nn.Module:
        """A plain module with its own copy of the weights, equal to the supernet with `architecture` active."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of the active architecture."""
        ...


class SearchSpace(Protocol):
    """What a space has to say; the functions of this module answer everything else."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        """The choices, a gene after the one it needs."""
        ...

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The places of the network, input first."""
        ...

    def input_shape(self, architecture: Architecture) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        ...

    def supernet(self) -> nn.Module:
        """A freshly initialised supernet: an nn.Module that is a Supernet."""
        ...

    def restrict(self, mask: Sequence[Sequence[bool]]) -> SearchSpace:
        """The same space with only the masked options allowed; option indices keep their meaning."""
        ...
