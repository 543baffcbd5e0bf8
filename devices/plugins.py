"""Plugins are found by file name in a folder of hwnas, and by entry-point group from other packages."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any


def plugin_names(package: ModuleType) -> tuple[str, ...]:
    """Names of every plugin of a folder, sorted.

    The entry-point group is the folder's import name; a file whose name begins with an underscore is no plugin.
    """
    return tuple(sorted(set(_files(package)) | set(entry_points(group=package.__name__).names)))


def load_plugin(package: ModuleType, name: str) -> Any:
    """The plugin's module, or the object an entry point names. Raises LookupError that lists the known names."""
    if name in _files(package):
        return importlib.import_module(f"{package.__name__}.{name}")
    for entry in entry_points(group=package.__name__, name=name):
        return entry.load()
    known = ", ".join(plugin_names(package)) or "none"
    kind = package.__name__.rpartition(".")[2]
    raise LookupError(
        f"no {name!r} among the {kind} (known: {known}): correct the name, or install the package that brings it "
        f"under the entry-point group {package.__name__!r}"
    )


def _files(package: ModuleType) -> list[str]:
    return [found.name for found in pkgutil.iter_modules(package.__path__) if not found.name.startswith("_")]
