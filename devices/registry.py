"""The devices that a person has named: a TOML file, one table a device, beside those that every machine has.

[kitchen-pi]
target = "raspberry-pi-4"                        # a name of the catalogue, or a TVM target as JSON text
address = "tracker://192.168.1.2:9190/rpi4"
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hwnas.devices.catalog import device_from_catalog
from hwnas.devices.device import Device, DeviceError, DeviceKind
from hwnas.devices.host import probe_host
from hwnas.devices.modelled import modelled_devices
from hwnas.devices.runners import runner_names
from hwnas.devices.runners.rpc import parse_address
from hwnas.devices.runtimes import runtime_names

# Devices that every machine has.
BUILT_IN: Mapping[str, Callable[[], Device]] = {
    "host": probe_host,
    "host-onnxruntime": partial(probe_host, "onnxruntime"),
    **{name: partial(lambda device: device, device) for name, device in modelled_devices().items()},
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEAD = "# Devices of hwnas: see `hwnas devices add --help`. Comments are not kept when it adds or removes one.\n"


class Entry(BaseModel):
    """A device as the file says it; what it leaves out is the catalogue's."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    target: str
    address: str = ""
    kind: DeviceKind | None = None
    runner: str | None = None
    runtime: str | None = None
    threads: int = Field(default=1, ge=1)


def registry_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the file lies: in $HWNAS_HOME, or else in hwnas under $XDG_CONFIG_HOME or ~/.config."""
    if environment.get("HWNAS_HOME"):
        return Path(environment["HWNAS_HOME"]) / "devices.toml"
    config = environment.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "hwnas" / "devices.toml"


@dataclass(frozen=True, slots=True)
class Registry:
    """The devices of one file. A file that is not there names none."""

    path: Path

    def names(self) -> tuple[str, ...]:
        """Every name, those that every machine has first. Raises DeviceError for a file that is broken."""
        return (*BUILT_IN, *self._read())

    def find(self, name: str) -> Device:
        """The device called `name`. Raises DeviceError that lists the known names."""
        if name in BUILT_IN:
            return BUILT_IN[name]()
        entries = self._read()
        if name not in entries:
            raise DeviceError(
                f"no device is called {name!r} (known: {', '.join(self.names())}): choose one of them, or name it with "
                "`hwnas devices add`"
            )
        return device_of(name, entries[name])

    def add(self, name: str, entry: Entry) -> Device:
        """Name a device. Raises DeviceError for a name that is taken or a device that cannot be."""
        if not _NAME.fullmatch(name):
            raise DeviceError(
                f"{name!r} is no name for a device: use up to 64 letters, digits, dots, dashes and underscores, "
                "the first a letter or a digit"
            )
        device = device_of(name, entry)
        with self._locked():
            entries = self._read()
            if name in entries or name in BUILT_IN:
                raise DeviceError(
                    f"there is a device called {name!r} already: choose another name"
                    + ("" if name in BUILT_IN else f", or run `hwnas devices remove {name}` first")
                )
            self._write({**entries, name: entry})
        return device

    def remove(self, name: str) -> None:
        """Forget a device; what was measured on it stays. Raises DeviceError for one that is not there to forget."""
        if name in BUILT_IN:
            raise DeviceError(f"{name!r} is on every machine and cannot be removed")
        with self._locked():
            entries = self._read()
            if name not in entries:
                known = ", ".join(entries) or "none"
                raise DeviceError(f"no device is called {name!r} in {self.path} (known: {known})")
            self._write({other: entry for other, entry in entries.items() if other != name})

    def _read(self) -> dict[str, Entry]:
        try:
            return TypeAdapter(dict[str, Entry]).validate_python(tomllib.loads(self.path.read_text()))
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise DeviceError(
                f"the devices in {self.path} cannot be read ({error}): mend the file or move it away"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DeviceError(f"{self.path} is wrong at {where}: {first['msg']}") from None

    def _write(self, entries: Mapping[str, Entry]) -> None:
        """Readers see the old file or the new one."""
        tables = [_table(name, entry) for name, entry in sorted(entries.items())]
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, prefix=self.path.name, delete=False) as draft:
            draft.write("\n".join([_HEAD, *tables]))
            draft.flush()
            os.fsync(draft.fileno())
        os.replace(draft.name, self.path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time. Raises DeviceError where the folder cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_suffix(".lock").open("w")
        except OSError as error:
            raise DeviceError(f"the devices in {self.path} cannot be changed: {error}") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def device_of(name: str, entry: Entry) -> Device:
    """The device that an entry means. Raises DeviceError for a target, runner, runtime or address that is none."""
    if entry.target.lstrip().startswith("{"):
        _check_target(entry.target)
        kind: DeviceKind = entry.kind or "edge-cpu"
        device = Device(name, entry.target, kind, entry.runner or "rpc", entry.address, entry.threads)
    else:
        device = device_from_catalog(
            name, entry.target, runner=entry.runner, address=entry.address, threads=entry.threads
        )
    device = replace(device, kind=entry.kind or device.kind, runtime=entry.runtime or device.runtime)
    for what, value, known in (
        ("runner", device.runner, runner_names()),
        ("runtime", device.runtime, runtime_names()),
    ):
        if value not in known:
            raise DeviceError(f"no {what} is called {value!r} (known: {', '.join(known)})")
    if device.runner == "rpc":
        parse_address(device.address)
    return device


def _check_target(text: str) -> None:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise DeviceError(f"the target {text!r} is no JSON: {error}") from None
    if not isinstance(fields.get("kind"), str):
        raise DeviceError(f'the target {text!r} has no kind: write for example {{"kind": "llvm"}}')


def _table(name: str, entry: Entry) -> str:
    fields = entry.model_dump(exclude_none=True, exclude_defaults=True)
    lines = [f"{key} = {_toml(value)}" for key, value in fields.items()]
    return "\n".join([f"[{_toml(name)}]", *lines, ""])


def _toml(value: str | int) -> str:
    """TOML writes numbers as JSON does, and strings too where nothing but DEL and what JSON must is escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
