"""What a report is made of: plain values that a pipeline fills in; whatever is left out is reported as missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hwnas.devices import Fingerprint, Protocol
from hwnas.engine.architecture import FloatArray
from hwnas.engine.front import Front
from hwnas.engine.training.checkpoint import EpochRecord
from hwnas.latency.quality import PredictionQuality

Role = Literal["fit", "check", "front"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Every candidate that the search evaluated."""

    latency_ms: FloatArray  # (n,), predicted
    accuracy: FloatArray  # (n,), on the validation split, 0..1

    def __post_init__(self) -> None:
        if np.ndim(self.latency_ms) != 1 or np.shape(self.latency_ms) != np.shape(self.accuracy):
            raise ValueError(
                f"candidates have latencies {np.shape(self.latency_ms)} and accuracies {np.shape(self.accuracy)}: "
                "give one number a candidate"
            )


@dataclass(frozen=True, slots=True)
class HypervolumeTrace:
    """How the front grew while the search ran."""

    evaluations: tuple[int, ...]
    hypervolume: tuple[float, ...]  # normalised, 0..1
    reference_latency_ms: float
    reference_accuracy: float

    def __post_init__(self) -> None:
        if len(self.evaluations) != len(self.hypervolume):
            raise ValueError(f"{len(self.evaluations)} evaluations and {len(self.hypervolume)} hypervolumes: pair them")


@dataclass(frozen=True, slots=True)
class NetworkCheck:
    """One whole network, predicted and measured. Networks of role `fit` corrected the table, the others judge it."""

    label: str
    role: Role
    predicted_ms: float
    measured_ms: float
    ci_ms: tuple[float, float] | None = None  # of the measured median


@dataclass(frozen=True, slots=True)
class TableSummary:
    """The latency table in figures."""

    blocks: int
    failures: int = 0  # blocks that did not compile or run
    networks: int = 0  # measured whole


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything that a report shows."""

    title: str
    front: Front
    device: str = ""
    created: str = ""  # date and time as text
    test_size: int | None = None  # images behind a test accuracy
    history: tuple[EpochRecord, ...] = ()
    trace: HypervolumeTrace | None = None
    candidates: Candidates | None = None
    checks: tuple[NetworkCheck, ...] = ()
    quality: PredictionQuality | None = None
    table: TableSummary | None = None
    fingerprint: Fingerprint | None = None
    protocol: Protocol | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)  # settings, versions, seeds, digests; may be nested
    commands: tuple[str, ...] = ()  # that make all of it again

    @property
    def modelled(self) -> bool:
        """Whether a model stood in for the device: nothing in this report was measured."""
        return self.front.modelled or (self.fingerprint is not None and self.fingerprint.modelled)

    @property
    def missing(self) -> tuple[str, ...]:
        """What this report would show and was not given, in the order of the page."""
        unverified = not any(point.verified for point in self.front.points)
        gaps = {
            "points on the front": not self.front.points,
            "measurements of the front": bool(self.front.points) and unverified,
            "the course of the search": self.trace is None or not self.trace.evaluations,
            "check networks": self.quality is None,
            "the latency table": self.table is None,
            "the training": not self.history,
            "the device's fingerprint": self.fingerprint is None,
            "the measuring protocol": self.protocol is None,
            "provenance": not self.provenance,
            "commands": not self.commands,
        }
        return tuple(name for name, is_missing in gaps.items() if is_missing)
