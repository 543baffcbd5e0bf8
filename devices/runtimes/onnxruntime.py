"""ONNX Runtime on CPU: networks exported to ONNX, optimised when they are loaded."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the process that times artefacts loads this file alone
    from torch import Tensor, nn

    from hwnas.devices.compile.job import Settings
    from hwnas.devices.runtimes import Prepared

SUFFIX = ".onnx"


def version() -> str:
    """ONNX Runtime of this machine. Raises ImportError where it is not installed."""
    try:
        return f"onnxruntime {_version('onnxruntime')}"
    except PackageNotFoundError:
        raise ImportError("ONNX Runtime is not installed: pip install 'hwnas[export]'") from None


def compiler_versions(settings: Settings | None) -> str:  # noqa: ARG001  # no setting changes the export
    """What exports a network."""
    return ", ".join(f"{name} {_version(name)}" for name in ("onnx", "onnxscript", "torch"))


def prepare(model: nn.Module, inputs: tuple[tuple[int, ...], ...], settings: Settings) -> Prepared:
    """Export `model` to ONNX with its BatchNorm folded."""
    import hashlib

    import torch

    from hwnas.devices.runtimes import Prepared

    content = exported(model, tuple(torch.zeros(shape) for shape in inputs))
    key = hashlib.sha256(f"{settings.versions}\n".encode() + content).hexdigest()[:32]
    return Prepared(key, lambda path: _write(path, content))


def exported(model: nn.Module, examples: tuple[Tensor, ...], **names: Any) -> bytes:
    """`model` as ONNX with its BatchNorm folded, the bytes of a file; `input_names` and `output_names` if given."""
    import torch

    from hwnas.devices.compile.lowering import fold_batch_norm

    with torch.no_grad():
        folded = fold_batch_norm(model, len(examples))
        program = torch.onnx.export(folded, examples, dynamo=True, verbose=False, **names)
    if program is None:
        raise RuntimeError("torch exported no program")
    content: bytes = program.model_proto.SerializeToString(deterministic=True)
    return content


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def load(path: str, threads: int) -> Loaded:
    """Open a session over an artefact; what follows the model in the file is the cache's seal."""
    return Loaded(path, threads)


class Loaded:
    """A session with its inputs."""

    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # idle threads that spin would heat the device and take the core from whatever is timed next
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        model = _without_seal(Path(path).read_bytes())
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._feed: dict[str, Any] = {}

    def set_inputs(self, arrays: list[Any]) -> None:
        """Inputs of the next calls. Raises ValueError where their number is wrong."""
        import numpy as np

        wanted = self._session.get_inputs()
        if len(arrays) != len(wanted):
            raise ValueError(f"the artefact takes {len(wanted)} inputs, not {len(arrays)}")
        self._feed = {
            value.name: np.ascontiguousarray(array, dtype=_DTYPES[value.type])
            for value, array in zip(wanted, arrays, strict=True)
        }

    def set_random_inputs(self) -> None:
        """Uniform in -1..1 from a fixed seed; whole numbers are 0 or 1, which any vocabulary has."""
        import numpy as np

        rng = np.random.default_rng(0)
        self.set_inputs(
            [
                rng.uniform(-1, 1, value.shape) if "float" in value.type else rng.integers(0, 2, value.shape)
                for value in self._session.get_inputs()
            ]
        )

    def output(self) -> Any:
        """First output of one call."""
        return self._session.run(None, self._feed)[0]

    def time_ms(self, calls: int, flush_mib: int = 0) -> list[float]:
        """Wall clock around each call."""
        import numpy as np

        trash = np.ones(flush_mib << 18, dtype=np.float32)
        runs_ms = []
        for _ in range(calls):
            trash += 1
            began = time.perf_counter()
            self._session.run(None, self._feed)
            runs_ms.append(1000 * (time.perf_counter() - began))
        return runs_ms


_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}


def _without_seal(data: bytes) -> bytes:
    """The model alone: the cache appends a manifest, then its size (4 bytes), a digest (32) and a magic (8)."""
    if not data.endswith(b"HWNASLIB"):
        return data
    size = int.from_bytes(data[-44:-40], "little")
    return data[: -44 - size]
