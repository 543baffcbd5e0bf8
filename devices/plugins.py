"""Plugins are found by file name in a folder of hwnas, by entry-point group from other packages, or are any file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # ships no types


def plugin_names(package: ModuleType) -> tuple[str, ...]:
    """Names of every plugin of a folder, sorted.

    The entry-point group is the folder's import name; a file whose name begins with an underscore is no plugin.
    """
    return tuple(sorted(set(_files(package)) | set(entry_points(group=package.__name__).names)))


def load_plugin(package: ModuleType, name: str) -> Any:
    """The plugin's module, or the object an entry point names; a name that ends in .py is the path of its file.

    Raises LookupError that lists the known names.
    """
    if name.endswith(".py"):
        return _from_file(Path(name))
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


def _from_file(path: Path) -> ModuleType:
    """The module in a Python file, imported once a process."""
    path = path.resolve()
    # two files of one name are two modules
    name = f"hwnas_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise LookupError(f"{path}: no such file: give the path of a plugin, relative to the configuration")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: its dataclasses look themselves up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    cloudpickle.register_pickle_by_value(module)  # compiling processes cannot import it by name
    return module


def _files(package: ModuleType) -> list[str]:
    return [found.name for found in pkgutil.iter_modules(package.__path__) if not found.name.startswith("_")]
