"""A folder of shared libraries, each named by what it was compiled from and closed by a digest of itself."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

# The manifest follows the ELF image: loaders read only what the headers name, so one file carries both
# and one rename puts both in place.
_MAGIC = b"HWNASLIB"
_TRAILER = struct.Struct("<I32s8s")  # bytes of manifest, digest of everything before the trailer, magic

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a library in the cache says of itself: its key and the shapes of its float32 inputs."""

    key: str
    inputs: Shapes
    peak_bytes: int | None = None  # of activations in one run, inputs and outputs included; None: not known


def library_path(cache: Path, key: str, suffix: str = ".so") -> Path:
    """Where the artefact of `key` lies. A path is never reused for other code: who has loaded it keeps it."""
    return cache / f"{key}{suffix}"


def read_manifest(path: Path) -> Manifest:
    """The manifest of a library. Raises ValueError for a file that is cut short, foreign or changed."""
    data = path.read_bytes()
    if len(data) < _TRAILER.size:
        raise ValueError(f"{path} is no library of this cache: {len(data)} bytes are too few")
    size, digest, magic = _TRAILER.unpack(data[-_TRAILER.size :])
    body = data[: -_TRAILER.size]
    if magic != _MAGIC or size > len(body) or hashlib.sha256(body).digest() != digest:
        raise ValueError(f"{path} is no whole library of this cache: delete it, and it is compiled again")
    fields = json.loads(body[len(body) - size :])
    return Manifest(fields["key"], tuple(tuple(shape) for shape in fields["inputs"]), fields.get("peak_bytes"))


def input_shapes(path: Path) -> Shapes:
    """Shapes of a library's float32 inputs, batch included. Raises ValueError for a file that is not whole."""
    return read_manifest(path).inputs


def is_whole(path: Path, key: str) -> bool:
    """Whether `path` holds the finished library of `key`."""
    try:
        return read_manifest(path).key == key
    except (OSError, ValueError):
        return False


def content(path: Path) -> bytes:
    """What a runtime wrote, without the manifest. Raises ValueError for a file that is not whole."""
    read_manifest(path)
    data = path.read_bytes()
    size, _, _ = _TRAILER.unpack(data[-_TRAILER.size :])
    return data[: len(data) - _TRAILER.size - size]


def store(cache: Path, manifest: Manifest, write: Callable[[Path], int | None], suffix: str = ".so") -> Path:
    """Let `write` fill a temporary file, seal it with `manifest` and rename it into place: readers see all or none.

    What `write` answers is the manifest's `peak_bytes`.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".building-") as folder:
        draft = library_path(Path(folder), manifest.key, suffix)
        seal(draft, replace(manifest, peak_bytes=write(draft)))
        final = library_path(cache, manifest.key, suffix)
        os.replace(draft, final)
    return final


def seal(path: Path, manifest: Manifest) -> None:
    """Append `manifest` and the digest to a freshly linked library."""
    said = {"key": manifest.key, "inputs": manifest.inputs, "peak_bytes": manifest.peak_bytes}
    fields = json.dumps(said).encode()
    body = path.read_bytes() + fields
    path.write_bytes(body + _TRAILER.pack(len(fields), hashlib.sha256(body).digest(), _MAGIC))
