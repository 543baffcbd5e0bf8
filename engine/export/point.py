"""One front point as a folder that can be deployed, every artefact compared with the network it came from."""

from __future__ import annotations

import copy
import platform
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.devices import Fingerprint, Measurement, Protocol, Runner
from hwnas.engine.export import artefacts, onnx_model
from hwnas.engine.export.folder import ExportedFile, ExportError, replacing, write_json, write_manifest
from hwnas.engine.front import FrontPoint

_PACKAGES = ("hwnas", "torch", "apache-tvm", "apache-tvm-ffi", "safetensors", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the points of a front come from, and what a program needs to feed them."""

    space: Mapping[str, Any]  # name and configuration, plain values
    mean: Sequence[float]  # of the training images, one number a channel; an input is (image - mean) / std
    std: Sequence[float]
    classes: Sequence[str] = ()
    device: str = ""
    fingerprint: Fingerprint | None = None  # of the device when the latencies were measured
    protocol: Protocol | None = None
    details: Mapping[str, Any] = field(default_factory=dict)  # settings, seeds, digests: plain values


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """What was written for one point."""

    folder: Path
    files: tuple[ExportedFile, ...]  # without the manifest
    parity: Mapping[str, float]  # largest difference from the network by artefact, relative to its largest output
    seconds: Mapping[str, float]  # wall time by artefact, check included


def folder_name(number: int, point: FrontPoint) -> str:
    """The usual name of a point's folder, as `point-03-1.24ms`."""
    return f"point-{number:02d}-{point.known_latency_ms:.2f}ms"


def export_point(
    point: FrontPoint,
    network: nn.Module,
    reference: Callable[[Tensor], Tensor] | None,
    *,
    input_shape: Sequence[int],
    artefact: Path,
    runner: Runner,
    folder: Path,
    provenance: Origin,
    measurement: Measurement | None = None,
    without: Collection[str] = (),
    seed: int = 0,
    clock: Callable[[], float] = perf_counter,
) -> ExportRecord:
    """Write `folder` for `point`: all of it or, on any error, nothing.

    `network` is the plain subnet with its own BatchNorm statistics; `input_shape` is without the batch, and the
    artefacts take a batch of one, as measured. `reference` is what the supernet computes with the same statistics,
    or None where there is no such thing. `artefact` is the TVM library that was measured, run again on `runner`.
    `without` names artefacts to leave out, such as `{"model.onnx"}` where the extra is not installed.
    Raises ExportError, which names the artefact and the figure, or what is in the way and the cure.
    """
    if not artefact.is_file():
        raise ExportError(f"{artefact} is not there: compile {point.architecture} for the device again")
    network = _plain(network)
    batches = artefacts.inputs(input_shape, seed=seed)
    unknown = sorted(set(without) - set(artefacts.FILES))
    if unknown:
        raise ValueError(f"no artefact is called {unknown[0]!r}: they are {', '.join(artefacts.FILES)}")
    known = artefacts.forms(network, batches[-1], library=artefact, runner=runner)
    forms = [form for form in known if form.file not in without]
    parity: dict[str, float] = {}
    limits: dict[str, float] = {}
    seconds: dict[str, float] = {}
    with replacing(folder) as draft, artefacts.one_thread():
        expected = artefacts.outputs(network, batches)
        if reference is not None:
            found = artefacts.outputs(reference, batches)
            limits["supernet"] = artefacts.COMPILED_LIMIT
            parity["supernet"] = _checked("supernet", found, expected, limits["supernet"])
        for form in forms:
            start = clock()
            form.write(draft / form.file)
            found = artefacts.outputs(form.open(draft / form.file), batches)
            limits[form.file] = form.limit
            parity[form.file] = _checked(form.file, found, expected, form.limit)
            seconds[form.file] = clock() - start
        write_json(draft / "architecture.json", _architecture(point, input_shape, provenance))
        write_json(draft / "latency.json", _latency(point, provenance, measurement))
        said = {
            "parity": {name: {"relative_difference": parity[name], "limit": limits[name]} for name in parity},
            "parity_inputs": f"zeros, ones, a ramp from -2 to 2, 2 of normal noise (seed {seed})",
            "onnx_opset": onnx_model.opset(draft / "model.onnx"),
            "versions": _versions(),
        }
        files = write_manifest(draft, said)
    return ExportRecord(folder, files, parity, seconds)


def _plain(network: nn.Module) -> nn.Module:
    """A copy for inference in torch's usual memory order, whatever the evaluation made of the original."""
    plain = copy.deepcopy(network).requires_grad_(False).eval()
    return plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return]  # no such stub


def _checked(name: str, found: np.ndarray, expected: np.ndarray, limit: float) -> float:
    figure = artefacts.difference(found, expected)
    if figure > limit:
        raise ExportError(
            f"{name} differs from the network by {figure:.2g} of its largest output, the limit is {limit:g}: "
            "it was made from other weights or statistics, or by a compiler that is wrong"
        )
    return figure


def _architecture(point: FrontPoint, input_shape: Sequence[int], origin: Origin) -> dict[str, Any]:
    return {
        "genes": dict(point.genes),
        "indices": list(point.architecture),
        "space": dict(origin.space),
        "input": {
            "name": "images",
            "shape": [1, *input_shape],
            "dtype": "float32",
            "normalise": "(image - mean) / std, image in 0..1",
            "mean": list(origin.mean),
            "std": list(origin.std),
        },
        "output": {"name": "logits", "classes": list(origin.classes)},
        "accuracy_validation": point.accuracy_validation,
        "accuracy_test": point.accuracy_test,
        "macs": point.macs,
        "params": point.params,
        "details": dict(origin.details),
    }


def _latency(point: FrontPoint, origin: Origin, measurement: Measurement | None) -> dict[str, Any]:
    low_high = point.latency_ci_ms
    return {
        "verified": point.verified,
        "latency_ms": point.latency_ms,
        "latency_ci_ms": None if low_high is None else list(low_high),
        "latency_p99_ms": point.latency_p99_ms,
        "latency_predicted_ms": point.latency_predicted_ms,
        "latency_std_ms": point.latency_std_ms,
        "device": origin.device,
        "fingerprint": None if origin.fingerprint is None else origin.fingerprint.to_json(),
        "protocol": None if origin.protocol is None else origin.protocol.to_json(),
        "measured_at": None if measurement is None else measurement.measured_at,
        "runs_ms": None if measurement is None else list(measurement.runs_ms),
        "drift": None if measurement is None else list(measurement.drift),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": sys.platform}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
