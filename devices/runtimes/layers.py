"""No runtime at all: a network's layers as JSON, for devices that are formulas or simulators."""

from __future__ import annotations

import json
from importlib.metadata import version as _version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # as in the files beside this one
    from torch import nn

    from hwnas.devices.compile.job import Settings
    from hwnas.devices.costs import Layer
    from hwnas.devices.runtimes import Prepared

SUFFIX = ".layers.json"

_FORMAT = "1"  # of the list: change it with every change of what `layers` finds


def version() -> str:
    """Version of the list."""
    return f"layers {_FORMAT}"


def compiler_versions(settings: Settings | None) -> str:  # noqa: ARG001  # no setting changes the list
    """What finds the layers."""
    return f"layers {_FORMAT}, torch {_version('torch')}"


def prepare(model: nn.Module, inputs: tuple[tuple[int, ...], ...], settings: Settings) -> Prepared:
    """List the layers of `model` with its BatchNorm folded. Raises ValueError for an operator of unknown work."""
    import hashlib

    from hwnas.devices.compile.lowering import fold_batch_norm
    from hwnas.devices.costs import layers
    from hwnas.devices.runtimes import Prepared

    found = layers(fold_batch_norm(model, len(inputs)), *inputs)
    content = json.dumps([layer.to_json() for layer in found]).encode()
    key = hashlib.sha256(f"{settings.versions}\n".encode() + content).hexdigest()[:32]

    def write(path: Path) -> None:
        path.write_bytes(content)

    return Prepared(key, write)


def read_layers(path: Path) -> tuple[Layer, ...]:
    """The layers of an artefact. Raises OSError, and ValueError for a file that is not whole or holds no layers."""
    from hwnas.devices.compile.cache import content
    from hwnas.devices.costs import Layer

    try:
        return tuple(Layer.from_json(fields) for fields in json.loads(content(path)))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path.name} is no list of layers ({type(error).__name__}: {error})") from None


def load(path: str, threads: int) -> NoReturn:  # noqa: ARG001  # a runtime has it
    """Always raises RuntimeError: a list of layers does not run."""
    raise RuntimeError("a list of layers does not run: open its device with the runner 'roofline' or 'systolic'")
