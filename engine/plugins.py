"""Plugins are found by file name in a folder of hwnas, and by entry-point group from other packages."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any


def names(package: ModuleType) -> tuple[str, ...]:
    """Names of every plugin of a folder, sorted; the entry-point group is the folder's import name."""
    own = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return tuple(sorted(own | set(entry_points(group=package.__name__).names)))


def load(package: ModuleType, name: str) -> Any:
    """The plugin's module, or the object an entry point names. Raises ValueError that lists the known names."""
    for module in pkgutil.iter_modules(package.__path__):
        if module.name == name:
            return importlib.import_module(f"{package.__name__}.{name}")
    for entry in entry_points(group=package.__name__, name=name):
        return entry.load()
    kind = package.__name__.rpartition(".")[2]
    raise ValueError(f"no {name!r} among the {kind}: choose from {', '.join(names(package))}")
