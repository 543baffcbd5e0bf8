"""What every runner keeps: inherit it and give `runner`, `artefact` and `broken`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas.devices import Device, Fingerprint, Measurement, Protocol, RunFailure, Runner, open_runner, runner_names

SHORT = Protocol(rounds=2, repeats=3, warmup=1, niceness=0, timeout_s=30.0)


class RunnerContract:
    """Inherit it as `class TestRpc(RunnerContract)`; a plugin author needs nothing else of these tests."""

    @pytest.fixture
    def device(self) -> Device:
        raise NotImplementedError("give the device that the runner opens")

    @pytest.fixture
    def artefact(self) -> Path:
        raise NotImplementedError("give an artefact that runs on the device")

    @pytest.fixture
    def broken(self) -> Path:
        raise NotImplementedError("give an artefact that does not run on the device")

    @pytest.fixture
    def runner(self, device: Device) -> Iterator[Runner]:
        runner = open_runner(device, compiler="compiler 1")
        yield runner
        runner.close()

    def test_it_is_found_by_name(self, device: Device) -> None:
        assert device.runner in runner_names()

    def test_the_fingerprint_survives_json(self, runner: Runner) -> None:
        fingerprint = runner.fingerprint()
        assert Fingerprint.from_json(fingerprint.to_json()) == fingerprint

    def test_the_identity_does_not_change_with_the_state(self, runner: Runner, artefact: Path) -> None:
        before = runner.fingerprint().identity
        runner.time([artefact], SHORT)
        assert runner.fingerprint().identity == before

    def test_an_artefact_has_positive_runs(self, runner: Runner, artefact: Path) -> None:
        (timed,) = runner.time([artefact], SHORT)
        assert isinstance(timed, Measurement)
        assert min(timed.runs_ms) > 0
        assert timed.protocol == SHORT

    def test_a_broken_artefact_fails_alone(self, runner: Runner, artefact: Path, broken: Path) -> None:
        first, failed, last = runner.time([artefact, broken, artefact], SHORT)
        assert isinstance(failed, RunFailure)
        assert broken.name in str(failed)
        assert isinstance(first, Measurement)
        assert isinstance(last, Measurement)

    def test_nothing_to_time_is_no_error(self, runner: Runner) -> None:
        assert runner.time([], SHORT) == []

    def test_a_broken_artefact_gives_no_output(self, runner: Runner, broken: Path) -> None:
        with pytest.raises(RunFailure, match=broken.name):
            runner.run(broken, [])

    def test_it_may_be_closed_twice(self, runner: Runner) -> None:
        runner.close()
        runner.close()
