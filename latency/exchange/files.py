"""Files that are replaced whole or not at all, and what goes wrong with them in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwnas.latency.database import TableError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place at the end; `path` stays after an exception or a kill."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def complaining(path: Path) -> Iterator[None]:
    """Turn what a file does wrong into a TableError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise TableError(f"there is no {path if path.parent.is_dir() else path.parent}: check the path") from None
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}: name a file you may read and write") from error
    except (ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise TableError(
            f"{path} is damaged or no latency table ({said}): export it again where it came from"
        ) from error
    except ImportError as error:
        raise TableError(f"{path}: {path.suffix} needs {error.name}: pip install 'hwnas[exchange]'") from error
