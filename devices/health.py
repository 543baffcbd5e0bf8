"""Half a minute that says whether a device is fit to be measured on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from hwnas.devices.compile import Artefact, CompileFailure, CompileJob, Compiler
from hwnas.devices.device import Device, Fingerprint
from hwnas.devices.measurement import Protocol
from hwnas.devices.runners import RunFailure, Runner, board_count, noise_floor, open_runner

TOLERANCE = 1e-4  # of an output, relative to the largest one
_SHAPE = (1, 3, 32, 32)
_NOISY = 0.05  # blocks of a search space differ by less
_SLOWED = 0.95  # of the clock before
_REPETITIONS = 5
_FEWEST, _MOST = 2, 20  # rounds a repetition
_PILOT = Protocol(rounds=1, repeats=5, burn_in=1)


@dataclass(frozen=True, slots=True)
class Health:
    """What a check found. Without `problems` the device is fit."""

    device: Device
    before: Fingerprint
    after: Fingerprint
    boards: int  # that answer for the device
    opened_s: float  # to reach it
    deviation: float | None  # of the check network's output from torch's, relative; None where it did not run
    latency_ms: float | None  # of the check network
    noise_floor: float | None  # half the spread of five medians, relative
    took_s: float
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The findings as plain JSON values."""
        return {
            "device": self.device.to_json(),
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "boards": self.boards,
            "opened_s": round(self.opened_s, 3),
            "deviation": self.deviation,
            "latency_ms": self.latency_ms,
            "noise_floor": self.noise_floor,
            "took_s": round(self.took_s, 3),
            "problems": list(self.problems),
        }


def check(
    device: Device, compiler: Compiler, *, budget_s: float = 30.0, clock: Callable[[], float] = time.monotonic
) -> Health:
    """Reach a device, run a small network on it, compare its output with torch's and see how its times scatter.

    `compiler` makes artefacts for the device's target. The timing takes about half of `budget_s` at most, on a slow
    device by fewer runs. Raises DeviceError where the device cannot be reached: each of its kinds has its cure.
    """
    began = clock()
    runner = open_runner(device, compiler=compiler.versions())
    try:
        opened_s = clock() - began
        before = runner.fingerprint()
        problems: list[str] = []
        deviation = latency_ms = noise = None
        try:
            artefact = _compiled(compiler)
            deviation = _deviation(runner, artefact)
            if not deviation <= TOLERANCE:
                problems.append(f"its output is {deviation:.2g} from torch's (allowed: {TOLERANCE:g})")
            latency_ms = _latency_ms(runner, artefact, device)
            noise = _noise(runner, artefact, device, latency_ms, budget_s / 2)
            if noise > _NOISY:
                problems.append(f"its medians scatter by {noise:.1%}: keep other work from it, fix its clock, cool it")
        except RunFailure as failure:
            problems.append(str(failure))
        after = runner.fingerprint()
        boards = board_count(device)
    finally:
        runner.close()
    if before.clock_mhz and after.clock_mhz and after.clock_mhz < _SLOWED * before.clock_mhz:
        problems.append(
            f"its clock fell from {before.clock_mhz:.0f} to {after.clock_mhz:.0f} MHz: fix its governor, cool it"
        )
    return Health(
        device, before, after, boards, opened_s, deviation, latency_ms, noise, clock() - began, tuple(problems)
    )


def _network() -> nn.Module:
    """A convolution, a depthwise one, a pool and a classifier: what the blocks of most spaces are made of."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.Hardswish(),
        nn.Conv2d(32, 64, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def _compiled(compiler: Compiler) -> Artefact:
    (_, result), *_ = compiler.compile([CompileJob(_network, (_SHAPE,), "check network")])
    if isinstance(result, CompileFailure):
        raise RunFailure(str(result))
    return result


def _deviation(runner: Runner, artefact: Artefact) -> float:
    x = np.random.default_rng(0).uniform(-1, 1, _SHAPE).astype(np.float32)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)  # as the compiler does before it builds a network
        expected = _network().eval()(torch.from_numpy(x)).numpy()
    output = runner.run(artefact.path, [x])
    if output.shape != expected.shape:
        return float("inf")
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def _latency_ms(runner: Runner, artefact: Artefact, device: Device) -> float:
    (timed,) = runner.time([artefact.path], replace(_PILOT, threads=device.threads))
    if isinstance(timed, RunFailure):
        raise timed
    return timed.latency_ms


def _noise(runner: Runner, artefact: Artefact, device: Device, latency_ms: float, budget_s: float) -> float:
    """The noise floor from as many rounds as fit into the budget."""
    calls = _PILOT.repeats + _PILOT.warmup
    fitting = int(1000 * budget_s / (_REPETITIONS * calls * latency_ms)) - _PILOT.burn_in
    protocol = replace(_PILOT, rounds=min(_MOST, max(_FEWEST, fitting)), threads=device.threads)
    return noise_floor(runner, artefact.path, protocol, repetitions=_REPETITIONS)
