"""TVM targets by name: what to compile for on boards that people have, and on those that a person adds."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator

from hwnas.devices.device import Device, DeviceError, DeviceKind

_FILE = Path(__file__).with_name("catalog.toml")


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A target of the catalogue: everything of a device but its name and its address."""

    name: str
    kind: DeviceKind
    target: str  # a TVM target as JSON text
    description: str
    source: str  # of the facts
    runtime: str  # file name in `devices/runtimes`
    runner: str  # file name in `devices/runners` that usually reaches it
    links: bool  # whether its code becomes a library here


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    kind: DeviceKind
    description: str
    source: str
    target: dict[str, Any]
    runtime: str = "tvm"
    runner: str = "rpc"
    links: bool = True

    @field_validator("target")
    @classmethod
    def _names_its_kind(cls, target: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(target.get("kind"), str):
            raise ValueError('a TVM target has a kind, such as kind = "llvm"')
        return target


def catalog(own: Path | None = None) -> dict[str, CatalogEntry]:
    """Every target by name, sorted. `own` is a file of the same form, whose entries come before ours of the same name.

    Raises DeviceError for a file that cannot be read, is no TOML or has a wrong entry.
    """
    entries = _read(_FILE) | (_read(own) if own is not None else {})
    return dict(sorted(entries.items()))


def entry(name: str, *, own: Path | None = None) -> CatalogEntry:
    """The target called `name`. Raises DeviceError that lists the known names."""
    entries = catalog(own)
    if name not in entries:
        raise DeviceError(
            f"no target {name!r} in the catalogue (known: {', '.join(entries)}): take one of them, or add it to a "
            f"catalogue file of your own"
        )
    return entries[name]


def device_from_catalog(
    name: str,
    target_name: str,
    *,
    runner: str | None = None,
    address: str = "",
    threads: int = 1,
    own: Path | None = None,
) -> Device:
    """The device `name` with a target of the catalogue, reached by `runner` (that of the entry where it is None).

    Raises DeviceError for an unknown target and for one whose code becomes no library, so that nothing could be sent.
    """
    found = entry(target_name, own=own)
    if not found.links:
        raise DeviceError(f"{target_name} becomes code, not a library that a device loads: {found.description}")
    return Device(
        name=name,
        target=found.target,
        kind=found.kind,
        runner=runner or found.runner,
        address=address,
        threads=threads,
        runtime=found.runtime,
    )


def _read(path: Path) -> dict[str, CatalogEntry]:
    try:
        rows = TypeAdapter(dict[str, _Row]).validate_python(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DeviceError(f"the catalogue {path} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DeviceError(f"the catalogue {path} is wrong at {where}: {first['msg']}") from None
    return {
        name: CatalogEntry(
            name=name,
            kind=row.kind,
            target=json.dumps(row.target, sort_keys=True),
            description=row.description,
            source=row.source,
            runtime=row.runtime,
            runner=row.runner,
            links=row.links,
        )
        for name, row in rows.items()
    }
