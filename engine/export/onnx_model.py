"""ONNX: written by torch, run by onnxruntime. The one file that needs the extra `export`."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.devices.runtimes.onnxruntime import exported
from hwnas.engine.export.folder import ExportError

OPSET = 17  # what runtimes on devices have understood since 2022; nothing newer is needed here


def write(network: nn.Module, example: Tensor, path: Path, *, integers: bool = False) -> None:
    """Write `network` for inputs of the shape of `example`, BatchNorm folded. Raises ExportError.

    With `integers`, quantised layers compute in integers, at the opset that torch writes them in.
    """
    _require_extra()
    if integers:  # the TorchScript exporter does not know the symbolic operators that quantised layers are made of
        with quiet():
            path.write_bytes(exported(network, (example,), input_names=["images"], output_names=["logits"]))
        return
    # The TorchScript exporter takes 1.2 s for 16 blocks where the dynamo exporter takes 5 to 11 s (torch 2.13, 2 shared
    # cores), and it folds BatchNorm as well: 201 nodes against 148, the same outputs in onnxruntime.
    with quiet():
        torch.onnx.export(
            network,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
        )


def opset(path: Path) -> int | None:
    """Of the standard operators of a written model; None where there is none."""
    if not path.exists():
        return None
    import onnx

    found = {entry.domain: entry.version for entry in onnx.load(path).opset_import}
    return int(found[""])


def open_model(path: Path) -> Callable[[Tensor], np.ndarray]:
    """A call that runs the file in onnxruntime on one core. Raises ExportError."""
    _require_extra()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> np.ndarray:
        output: np.ndarray = session.run(None, {"images": images.numpy()})[0]
        return output

    return run


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' warnings, log lines and prints from the terminal; errors still come as exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch._export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _require_extra() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"ONNX needs the package {error.name}: pip install 'hwnas[export]', or export without model.onnx"
        ) from None
