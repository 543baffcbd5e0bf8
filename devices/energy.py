"""Energy counters of a machine, where it has any: RAPL of x86 processors and NVML of NVIDIA's graphics processors.

Both count what a whole package or card takes, whoever uses it: an idle machine, and the idle power taken off, are the
caller's to see to.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Protocol as Role

RAPL_ROOT = Path("/sys/class/powercap")


class Counter(Role):
    """Counts energy upwards from some time in the past."""

    def read_mj(self) -> float:
        """Energy since then, in mJ. Raises OSError where the counter has gone."""
        ...


@dataclass(slots=True)
class RaplCounter:
    """Running average power limit: the processor packages of this machine, through Linux's powercap.

    The kernel's counters run over at `max_energy_range_uj`, after minutes under load; a counter that is read at least
    once in that time misses none of it.
    """

    zones: tuple[Path, ...]
    _last_uj: list[int] = field(init=False)
    _ranges_uj: list[int] = field(init=False)
    _total_uj: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._ranges_uj = [_number(zone / "max_energy_range_uj") for zone in self.zones]
        self._last_uj = [_number(zone / "energy_uj") for zone in self.zones]

    def read_mj(self) -> float:
        """Energy of all packages since this counter was made, in mJ. Raises OSError."""
        for index, zone in enumerate(self.zones):
            now = _number(zone / "energy_uj")
            passed = now - self._last_uj[index]
            # a counter that runs over goes from its range to 0
            self._total_uj += passed if passed >= 0 else passed + self._ranges_uj[index] + 1
            self._last_uj[index] = now
        return self._total_uj / 1000


@dataclass(frozen=True, slots=True)
class NvmlCounter:
    """One graphics processor; Volta and later count their energy."""

    index: int
    total_energy_mj: Callable[[], int]

    def read_mj(self) -> float:
        """Energy of the card since its driver was loaded, in mJ."""
        return float(self.total_energy_mj())


def rapl_counter(root: Path = RAPL_ROOT) -> RaplCounter | None:
    """The packages' counter, None where there is none or this user may not read it (root alone may, since 2020)."""
    # intel-rapl:0 is a package, on AMD too; intel-rapl:0:0 is a part of it and would be counted twice
    zones = sorted(path for path in root.glob("intel-rapl:*") if path.name.count(":") == 1)
    with contextlib.suppress(OSError, ValueError):
        packages = [zone for zone in zones if (zone / "name").read_text().startswith("package")]
        return RaplCounter(tuple(packages)) if packages else None
    return None


def nvml_counter(index: int = 0) -> NvmlCounter | None:
    """The counter of a graphics processor, None without NVIDIA's driver, without pynvml or on a card before Volta."""
    try:
        pynvml = import_module("pynvml")  # ships no types
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        counter = NvmlCounter(index, lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
        counter.read_mj()
    except pynvml.NVMLError:
        return None
    return counter


class EnergyMeter:
    """Energy that counters saw between entering and leaving.

    with EnergyMeter([rapl_counter()]) as meter:
        ...
    meter.energy_mj  # None where there was no counter
    """

    def __init__(self, counters: list[Counter | None]) -> None:
        self._counters = [counter for counter in counters if counter is not None]
        self._before_mj = 0.0
        self.energy_mj: float | None = None

    def __enter__(self) -> EnergyMeter:
        self._before_mj = sum(counter.read_mj() for counter in self._counters)
        return self

    def so_far_mj(self) -> float:
        """Energy since entering, in mJ; 0 without a counter."""
        return sum(counter.read_mj() for counter in self._counters) - self._before_mj

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._counters:
            self.energy_mj = self.so_far_mj()


def energy_per_call_mj(counter: Counter, call: Callable[[], int], *, idle_s: float = 0.3) -> float:
    """Energy of one call in mJ, above that of the machine doing nothing.

    `call` makes some calls and says how many; the idle power is read for `idle_s` before it. Never below 0: on a
    machine with other work the idle power wavers by more than a small network takes.
    """
    with EnergyMeter([counter]) as idle:
        began = time.perf_counter()
        time.sleep(idle_s)
        idle_mw = idle.so_far_mj() / (time.perf_counter() - began)
    with EnergyMeter([counter]) as busy:
        began = time.perf_counter()
        calls = call()
        took_s = time.perf_counter() - began
    return max(0.0, ((busy.energy_mj or 0.0) - idle_mw * took_s) / calls)


def _number(path: Path) -> int:
    return int(path.read_text())
