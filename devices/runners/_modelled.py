"""What the runners of modelled devices share: reading artefacts, answering with one figure, saying what answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from hwnas.devices.costs import MULTIPLYING, Layer
from hwnas.devices.device import Device, DeviceError, Fingerprint
from hwnas.devices.measurement import Measurement, Protocol
from hwnas.devices.runfailure import RunFailure
from hwnas.devices.runtimes.layers import read_layers

Spec = TypeVar("Spec")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run takes on a modelled device."""

    latency_ms: float
    energy_mj: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.latency_ms + other.latency_ms, self.energy_mj + other.energy_mj)


class ModelledRunner:
    """A device that is a formula or a simulator: its artefacts are lists of layers, its answers have no spread."""

    def __init__(self, fingerprint: Fingerprint, cost: Callable[[Sequence[Layer], Path], Cost]) -> None:
        """`cost` is told the artefacts' folder too, and raises RunFailure for layers that the model cannot judge."""
        self._fingerprint = fingerprint
        self._cost = cost

    def fingerprint(self) -> Fingerprint:
        """The model and its parameters; `modelled` is True."""
        return self._fingerprint

    def run(self, artefact: Path, inputs: Sequence[Any]) -> Any:  # noqa: ARG002  # the role has them
        """Always raises RunFailure: a model has times and no outputs."""
        raise RunFailure(
            f"{artefact.name}: a modelled device computes no outputs, run the network with another runtime"
        )

    def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
        """One run each, with its energy, whatever number of runs the protocol asks for: another would be the same."""
        return [self._timed(artefact, protocol) for artefact in artefacts]

    def close(self) -> None:
        """Nothing is held."""

    def _timed(self, artefact: Path, protocol: Protocol) -> Measurement | RunFailure:
        try:
            cost = self._cost(read_layers(artefact), artefact.parent)
        except RunFailure as failure:
            return RunFailure(f"{artefact.name}: {failure}")
        except (OSError, ValueError) as error:
            return RunFailure(f"{artefact.name}: {error}")
        if not cost.latency_ms > 0:
            return RunFailure(f"{artefact.name}: it has no layers that take time")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Measurement((cost.latency_ms,), protocol, now, energy_mj=cost.energy_mj)


def modelled_fingerprint(device: Device, *, soc: str, runtime: str, spec: object, compiler: str) -> Fingerprint:
    """Of a model: its name, the versions that answer, and every parameter in the place of a target."""
    return Fingerprint(
        soc=soc,
        cores=1,
        isa=(),
        os="none",
        runtime=runtime,
        compiler=compiler,
        target=spec_json(spec),
        threads=device.threads,
        modelled=True,
    )


def spec_json(spec: object) -> str:
    """A specification as JSON text."""
    return json.dumps({field.name: getattr(spec, field.name) for field in fields(spec)}, sort_keys=True)  # type: ignore[arg-type]  # a dataclass


def read_spec(device: Device, kind: type[Spec], presets: Mapping[str, Spec]) -> Spec:
    """The specification at a device's address: a preset's name, or JSON text. Raises DeviceError."""
    if device.address in presets:
        return presets[device.address]
    try:
        values = json.loads(device.address)
        hints = get_type_hints(kind)
        unknown = sorted(set(values) ^ set(hints))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is {'unknown' if unknown[0] in values else 'missing'}")
        for name, value in values.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if hints[name] is str and not isinstance(value, str):
                raise ValueError(f"{name} is {value!r}, give text")
            if hints[name] is not str and not (number and (hints[name] is float or isinstance(value, int))):
                raise ValueError(f"{name} is {value!r}, give a number")
            if number and value < 0:
                raise ValueError(f"{name} is {value}, give 0 or more")
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise DeviceError(
            f"device {device.name!r}: its address {device.address[:80]!r} is no specification ({error}): give a preset "
            f"({', '.join(sorted(presets))}) or JSON text with {', '.join(get_type_hints(kind))}"
        ) from None


def rides_along(layers: Sequence[Layer], index: int) -> bool:
    """Whether an operator is applied to results on their way out of the layer before it, so that no memory sees it.

    So for an element-wise operator or a normalisation with one input, as large as its output, that a multiplying layer
    or another such operator has just made.
    """
    layer = layers[index]
    if layer.kind not in ("elementwise", "norm") or len(layer.sources) != 1:
        return False
    source = layer.sources[0]
    if source < 0 or layers[source].output_elements != layer.output_elements:
        return False
    return layers[source].kind in MULTIPLYING or rides_along(layers, source)
