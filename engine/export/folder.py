"""An export folder: written beside its place, renamed into it, and checked against its manifest later."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_FORMAT = 1


class ExportError(RuntimeError):
    """A point that could not be exported, or an artefact that does not compute what the network computes."""


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """What the manifest says of one file."""

    name: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path) -> ExportedFile:
        """The file as it is now."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path.name, digest, path.stat().st_size)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain values for people and programs. Raises ValueError for a number that JSON has no word for."""
    path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_manifest(folder: Path, said: Mapping[str, Any]) -> tuple[ExportedFile, ...]:
    """Close a folder with the checksum of every file in it, beside what else is `said` of it."""
    files = tuple(ExportedFile.of(path) for path in sorted(folder.iterdir()))
    write_json(folder / MANIFEST, {"format": _FORMAT, "files": [asdict(file) for file in files], **said})
    return files


def verify_export(folder: Path) -> list[str]:
    """What differs from the manifest, a line a file; empty for a folder that is as it was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = [ExportedFile(**file) for file in manifest["files"]]
    except OSError as error:
        return [f"{MANIFEST}: cannot be read ({error.strerror})"]
    except (ValueError, KeyError, TypeError) as error:
        return [f"{MANIFEST}: not the manifest of an export ({error!r})"]
    return [difference for file in files if (difference := _difference(folder, file)) is not None]


def _difference(folder: Path, file: ExportedFile) -> str | None:
    if Path(file.name).name != file.name:  # a manifest may come from elsewhere: it speaks of this folder alone
        return f"{file.name}: not the name of a file in this folder"
    try:
        found = ExportedFile.of(folder / file.name)
    except FileNotFoundError:
        return f"{file.name}: missing"
    except OSError as error:
        return f"{file.name}: cannot be read ({error.strerror})"
    if found.bytes != file.bytes:
        return f"{file.name}: {found.bytes} bytes, the manifest says {file.bytes}"
    if found.sha256 != file.sha256:
        return f"{file.name}: SHA-256 {found.sha256[:12]}, the manifest says {file.sha256[:12]}"
    return None


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A fresh folder that takes the place of `folder` when the block ends well and vanishes when it does not.

    An older export there is replaced; anything else that lies there is refused. Raises ExportError.
    """
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        _refuse_foreign(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        yield draft
        if folder.exists():
            os.rename(folder, old)
        os.rename(draft, folder)
    except OSError as error:
        where = error.filename or folder
        raise ExportError(
            f"{folder}: cannot be written ({error.strerror or error}: {where}): "
            "make its parent writable, free some space or choose another folder"
        ) from error
    finally:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(draft, ignore_errors=True)


def _refuse_foreign(folder: Path) -> None:
    is_export = (folder / MANIFEST).is_file()
    if folder.exists() and not is_export and not (folder.is_dir() and not any(folder.iterdir())):
        raise ExportError(f"{folder} exists and is no export: move it away or choose another folder")
