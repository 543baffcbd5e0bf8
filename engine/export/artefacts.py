"""The forms in which a network leaves: how each is written, and how it is run again to compare."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from hwnas.devices import RunFailure, Runner
from hwnas.engine.export import onnx_model
from hwnas.engine.export.folder import ExportedFile, ExportError
from hwnas.engine.quantisation import is_quantised

Run = Callable[[Tensor], np.ndarray]

# Another compiler or runtime sums in another order: 1e-6 of the largest output is usual, wrong code is far above 1e-4.
COMPILED_LIMIT = 1e-4
RELOADED_LIMIT = 1e-6  # the same kernels on the same numbers
# a sum that falls between two codes may go either way in integers, a step of 1/255 of a range, layer after layer
QUANTISED_LIMIT = 0.05


@dataclass(frozen=True, slots=True)
class Form:
    """One artefact: its file, how far its outputs may lie from the network's, how it is written and run."""

    file: str
    limit: float  # of the largest absolute difference, relative to the largest absolute output
    write: Callable[[Path], None]
    open: Callable[[Path], Run]


FILES = ("weights.safetensors", "program.pt2", "model.so", "model.onnx")


def forms(network: nn.Module, example: Tensor, *, library: Path, runner: Runner) -> tuple[Form, ...]:
    """Weights, exported program, TVM library and ONNX, in the order of FILES.

    A quantised network has no exported program, which would be its simulation in floats; its ONNX computes in integers.
    """
    quantised = is_quantised(network)
    program = Form("program.pt2", RELOADED_LIMIT, partial(_write_program, network, example), _open_program)
    return (
        Form("weights.safetensors", RELOADED_LIMIT, partial(_write_weights, network), partial(_open_weights, network)),
        *(() if quantised else (program,)),
        Form("model.so", COMPILED_LIMIT, partial(_copy, library), lambda _: _on_device(library, runner)),
        Form(
            "model.onnx",
            QUANTISED_LIMIT if quantised else COMPILED_LIMIT,
            partial(onnx_model.write, network, example, integers=quantised),
            onnx_model.open_model,
        ),
    )


def inputs(shape: Sequence[int], *, seed: int) -> list[Tensor]:
    """Batches of one image: zeros, ones, a ramp, and two of standard normal noise, which normalised images resemble."""
    rng = np.random.default_rng(seed)
    size = (1, *shape)
    ramp = np.linspace(-2, 2, int(np.prod(size)), dtype=np.float32).reshape(size)
    noise = [rng.standard_normal(size, dtype=np.float32) for _ in range(2)]
    return [torch.from_numpy(x) for x in (np.zeros_like(ramp), np.ones_like(ramp), ramp, *noise)]


def outputs(run: Callable[[Tensor], Tensor | np.ndarray], batches: Sequence[Tensor]) -> np.ndarray:
    """Outputs of `run` for each batch, stacked, (batches, ...)."""
    with torch.no_grad():
        return np.stack([np.asarray(run(batch)) for batch in batches])


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference over the largest absolute expected output; infinite for another shape or NaN."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    scale = float(np.abs(expected).max())
    return float(np.abs(found - expected).max()) / (scale or 1.0)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: for one image at a time its threads spin, 3 times the CPU-seconds on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _write_weights(network: nn.Module, path: Path) -> None:
    save_model(network, str(path))
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors leaves it to its owner alone


def _open_weights(network: nn.Module, path: Path) -> Run:
    fresh = copy.deepcopy(network)
    with torch.no_grad():
        for tensor in (*fresh.parameters(), *fresh.buffers()):
            tensor.zero_()  # what the file does not hold is then missed
    load_model(fresh, path)
    return lambda images: fresh(images).numpy()


def _write_program(network: nn.Module, example: Tensor, path: Path) -> None:
    with torch.no_grad(), onnx_model.quiet():
        torch.export.save(torch.export.export(network, (example,)), path)


def _open_program(path: Path) -> Run:
    with onnx_model.quiet():
        module = torch.export.load(path).module()
    return lambda images: module(images).numpy()


def _copy(library: Path, path: Path) -> None:
    shutil.copyfile(library, path)
    if ExportedFile.of(path).sha256 != ExportedFile.of(library).sha256:
        raise ExportError(f"{library} changed while it was copied: export again")


def _on_device(library: Path, runner: Runner) -> Run:
    """Runs the cached library, whose name no other code has: a device may keep what it once loaded under a name."""

    def run(images: Tensor) -> np.ndarray:
        try:
            return np.asarray(runner.run(library, [images.numpy()]))
        except RunFailure as failure:
            raise ExportError(f"model.so does not run on the device: {failure}") from failure

    return run
