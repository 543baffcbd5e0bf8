"""The machine at hand as a device, and what the system says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.devices.board import read_facts
from hwnas.devices.device import Device, Fingerprint
from hwnas.devices.runtimes import find_runtime

UNKNOWN = "unknown"

# What a compiler picks other instructions for; the kernel lists many more that change no kernel's speed.
_X86_EXTENSIONS = re.compile(r"sse4_[12]|avx.*|fma|f16c|amx_.*")
_ARM_EXTENSIONS = re.compile(r"neon|vfpv4|asimd(hp|dp|fhm)?|fphp|i8mm|bf16|sve2?|sme")


def probe_host(runtime: str = "tvm") -> Device:
    """This machine's CPU, one thread, opened by the local runner: "host", or "host-RUNTIME" by another runtime."""
    # the compiler's folder loads TVM, which who only reads a fingerprint need not wait for
    from hwnas.devices.compile import host_target

    name = "host" if runtime == "tvm" else f"host-{runtime}"
    return Device(name=name, target=host_target(), kind="edge-cpu", runner="local", runtime=runtime)


def read_fingerprint(
    device: Device,
    *,
    compiler: str,
    niceness: int | None = None,
    pinned_to: tuple[int, ...] = (),
    root: Path = Path("/"),
) -> Fingerprint:
    """What this machine is and the state it is in; "unknown" or None where the system does not say.

    `compiler` is the versions of what made the artefacts; `root` is where /proc and /sys hang.
    """
    facts = read_facts(pinned_to[0] if pinned_to else 0, root)
    facts["runtime"] = find_runtime(device.runtime).version()
    return fingerprint_of(facts, device, compiler=compiler, niceness=niceness, pinned_to=pinned_to)


def fingerprint_of(
    facts: Mapping[str, Any],
    device: Device,
    *,
    compiler: str,
    niceness: int | None = None,
    pinned_to: tuple[int, ...] = (),
    board: str = "",
) -> Fingerprint:
    """The fingerprint of a machine by what it says of itself: see `hwnas.devices.board.read_facts`.

    A machine may say nothing at all; it is then told from others by its target and compiler alone.
    """
    cpuinfo = facts.get("cpuinfo", "")
    machine = facts.get("machine", "")
    # an emulator of processes shows the chip that it runs on
    emulated = "vendor_id" in _fields(cpuinfo) and machine not in ("x86_64", "AMD64", "i686", "i386")
    if emulated:
        cpuinfo = ""
    board_name = facts.get("model", "").strip("\0 \n")
    chip = f"emulated {machine or UNKNOWN}" if emulated else soc_name(cpuinfo, board=board_name)
    if facts.get("accelerator"):
        chip = f"{facts['accelerator']} ({chip})"
    return Fingerprint(
        soc=chip,
        cores=int(facts.get("cores", 0)),
        isa=instruction_set(cpuinfo),
        os=facts.get("os") or UNKNOWN,
        runtime=facts.get("runtime") or f"{device.runtime} {UNKNOWN}",
        compiler=compiler,
        target=device.target,
        threads=device.threads,
        governor=facts.get("governor") or UNKNOWN,
        clock_mhz=_clock_mhz(facts.get("clock_khz", ""), cpuinfo),
        load_1m=_load(facts.get("load", "")),
        niceness=niceness,
        pinned_to=pinned_to,
        board=board,
    )


_X86_NUMBERS = (("family", "cpu family"), ("model", "model"), ("stepping", "stepping"))
_ARM_NUMBERS = (("implementer", "CPU implementer"), ("part", "CPU part"), ("revision", "CPU revision"))


def soc_name(cpuinfo: str, *, board: str = "") -> str:
    """The chip's name from the text of /proc/cpuinfo, preceded by the board's where the device tree names one.

    x86 gives a model name, which a virtual machine may blur, so family, model and stepping follow it;
    aarch64 gives only the numbers of implementer and part.
    """
    fields = _fields(cpuinfo)
    chip = fields.get("model name") or fields.get("Hardware") or ""
    known = _X86_NUMBERS if "vendor_id" in fields else _ARM_NUMBERS
    numbers = [f"{name} {fields[key]}" for name, key in known if key in fields]
    details = f"({', '.join(numbers)})" if numbers else ""
    return " ".join(part for part in (board, chip, details) if part) or UNKNOWN


def instruction_set(cpuinfo: str) -> tuple[str, ...]:
    """Extensions that matter to a compiler, sorted: `flags` on x86, `Features` on ARM."""
    fields = _fields(cpuinfo)
    pattern, key = (_X86_EXTENSIONS, "flags") if "flags" in fields else (_ARM_EXTENSIONS, "Features")
    return tuple(sorted(filter(pattern.fullmatch, fields.get(key, "").split())))


def _fields(cpuinfo: str) -> dict[str, str]:
    """First value of each field: cores of one chip repeat them."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields


def _clock_mhz(kilohertz: str, cpuinfo: str) -> float | None:
    if kilohertz.isdigit():
        return int(kilohertz) / 1000
    try:
        return float(_fields(cpuinfo)["cpu MHz"])
    except (KeyError, ValueError):
        return None


def _load(loadavg: str) -> float | None:
    try:
        return float(loadavg.split(maxsplit=1)[0])
    except (IndexError, ValueError):
        return None
