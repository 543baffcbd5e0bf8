"""Generated code beside un-tuned TVM, torch eager and ONNX Runtime: every kind of MobileNetV3 block and a whole subnet.

    python benchmarks/compile.py

One thread on one core with raised priority where it is granted. All four are timed alike: `perf_counter` around one
call of a prepared Python callable on a fixed input, one call a repeat, visited in turn within every round, so that a
slow spell falls on all of them. torch runs its BatchNorm-folded module in inference mode, ONNX Runtime the export of
that same module with bound inputs and outputs, TVM the virtual machine's `main`. Un-tuned TVM is its default fused
pipeline without a schedule, on the same folded module. Exits with 1 if a bound below is missed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TVM_NUM_THREADS="1")

import numpy as np
import onnxruntime
import torch
import tvm
from record import Row, record
from torch import nn
from tvm import relax

from hwnas.devices.compile import CompileJob, Compiler, host_target, import_torch, link, lower
from hwnas.devices.compile.lowering import Schedule, fold_batch_norm
from hwnas.engine.spaces.mobilenet_v3 import blocks

TORCH_BOUND, ORT_BOUND = 1.2, 2.5  # medians of ours over theirs; the second on the whole subnet
ERROR_BOUND = 1e-5  # largest difference over the largest number
NET_BOUND_CPU_S = 15.0
ROUNDS, REPEATS, WARMUP, SEED = 15, 10, 3, 0

Case = tuple[Callable[[], nn.Module], tuple[int, ...]]


def mbconv(  # noqa: PLR0917  read as the columns of a table
    c_in: int, c_out: int, kernel: int, stride: int, hidden: int, se: bool, activation: str
) -> nn.Module:
    return blocks.mbconv(
        in_channels=c_in,
        out_channels=c_out,
        kernel=kernel,
        stride=stride,
        hidden=hidden,
        se=se,
        activation=activation,
    )


stem = partial(blocks.stem, in_channels=3, out_channels=16, stride=2, activation="hswish")
head = partial(blocks.head, in_channels=80, channels=480, features=640, classes=100, activation="hswish")

# width, layers, stride, squeeze-and-excite, activation, kernel, expansion: Once-for-All's stages at about half width
STAGES = (
    (24, 3, 2, False, "relu", 3, 4),
    (40, 3, 2, True, "relu", 5, 4),
    (56, 3, 2, False, "hswish", 3, 4),
    (56, 3, 1, True, "hswish", 5, 6),
    (80, 3, 2, True, "hswish", 7, 6),
)


def subnet() -> nn.Module:
    layers, c_in = [stem(), mbconv(16, 16, 3, 1, 16, False, "relu")], 16
    for width, count, stride, se, activation, kernel, expansion in STAGES:
        for layer in range(count):
            step = stride if layer == 0 else 1
            layers.append(mbconv(c_in, width, kernel, step, c_in * expansion, se, activation))
            c_in = width
    return nn.Sequential(*layers, head())


def cases() -> dict[str, Case]:
    """Stem, head, the block without expansion, and all kernels x strides x gates x activations at a subnet's sizes."""
    found: dict[str, Case] = {
        "stem": (stem, (1, 3, 96, 96)),
        "no expansion k3 relu": (partial(mbconv, 16, 16, 3, 1, 16, False, "relu"), (1, 16, 48, 48)),
    }
    for kernel in (3, 5, 7):
        for stride in (1, 2):
            for se, activation, size, c_in, c_out in (
                (False, "relu", 48 if stride == 2 else 24, 16 if stride == 2 else 24, 24),
                (True, "relu", 24 if stride == 2 else 12, 24 if stride == 2 else 40, 40),
                (False, "hswish", 12 if stride == 2 else 6, 40 if stride == 2 else 56, 56),
                (True, "hswish", 6 if stride == 2 else 3, 56 if stride == 2 else 80, 80),
            ):
                name = f"k{kernel} s{stride} {'se ' if se else ''}{activation} {size}x{size}"
                make = partial(mbconv, c_in, c_out, kernel, stride, c_in * 4, se, activation)
                found[name] = (make, (1, c_in, size, size))
    return {**found, "head": (head, (1, 80, 3, 3)), "subnet": (subnet, (1, 3, 96, 96))}


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """The module with drawn weights and drawn BatchNorm statistics: folding an identity would prove nothing."""
    torch.manual_seed(SEED)
    model = make()
    for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            if values is not None:
                values.uniform_(0.5, 1.5)
    return model.eval()


def tvm_call(model: nn.Module, x: torch.Tensor, schedule: Schedule, path: Path) -> Callable[[], Any]:
    lowered = lower(import_torch(model, (tuple(x.shape),)), host_target(), schedule=schedule)
    if lowered.fallbacks:
        print("not scheduled:", lowered.fallbacks)
    link(lowered, host_target(), path)
    main = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())["main"]
    return partial(main, tvm.runtime.tensor(x.numpy()))


def ort_call(folded: nn.Module, x: torch.Tensor, path: Path) -> Callable[[], Any]:
    torch.onnx.export(folded, (x,), str(path), dynamo=False, opset_version=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy(x.numpy())
    binding.bind_ortvalue_input(session.get_inputs()[0].name, value)
    binding.bind_output(session.get_outputs()[0].name)
    return partial(session.run_with_iobinding, binding)


def time_ms(calls: dict[str, Callable[[], Any]]) -> dict[str, np.ndarray]:
    """Runs in ms of each call, (ROUNDS x REPEATS,)."""
    runs: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for repeat in range(WARMUP + REPEATS):
                start = time.perf_counter()
                call()
                took = time.perf_counter() - start
                if repeat >= WARMUP:
                    runs[name].append(took * 1e3)
    return {name: np.array(values) for name, values in runs.items()}


def measure(name: str, make: Callable[[], nn.Module], shape: tuple[int, ...], cpu_seconds: float, folder: Path) -> Row:
    model = seeded(make)
    folded = fold_batch_norm(model)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(SEED))
    calls: dict[str, Callable[[], Any]] = {
        "ours": tvm_call(model, x, "cpu", folder / f"{name}.so"),
        "untuned": tvm_call(model, x, "none", folder / f"{name} untuned.so"),
        "torch": partial(folded, x),
        "ort": ort_call(folded, x, folder / f"{name}.onnx"),
    }
    with torch.inference_mode():
        theirs = model(x).numpy()
        ours = calls["ours"]()[0].numpy()
        runs = time_ms(calls)
    median = {kind: float(np.median(values)) for kind, values in runs.items()}
    return {
        "case": name,
        **{f"{kind} ms": value for kind, value in median.items()},
        **{f"{kind} p25": float(np.percentile(values, 25)) for kind, values in runs.items()},
        "/untuned": median["ours"] / median["untuned"],
        "/torch": median["ours"] / median["torch"],
        "/ort": median["ours"] / median["ort"],
        "error": float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
        "cpu s": cpu_seconds,
    }


def compile_seconds(asked: dict[str, Case], folder: Path) -> dict[str, float]:
    """CPU-seconds of each case in a compiling process that has compiled before."""
    warm = CompileJob(partial(nn.Conv2d, 3, 4, 1), ((1, 3, 4, 4),), "warm-up")
    jobs = [CompileJob(make, (shape,), name) for name, (make, shape) in asked.items()]
    with Compiler(host_target(), cache=folder / "cache", workers=1, timeout_s=600) as compiler:
        list(compiler.compile([warm]))
        seconds = {}
        for index, result in compiler.compile(jobs):
            if isinstance(result, Exception):
                raise result
            seconds[jobs[index].label] = result.cpu_seconds
    return seconds


def missed(rows: list[Row]) -> list[str]:
    """The bounds that do not hold, in words."""
    found = []
    for row in rows:
        whole = row["case"] == "subnet"
        bounds = [("/torch", TORCH_BOUND), ("error", ERROR_BOUND)]
        bounds += [("/ort", ORT_BOUND), ("cpu s", NET_BOUND_CPU_S)] if whole else []
        over = [(key, float(row[key] or 0), limit) for key, limit in bounds]
        found += [f"{row['case']}: {key} {value:.3g} > {limit}" for key, value, limit in over if value > limit]
    return found


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    asked = cases()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = compile_seconds(asked, folder)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        with suppress(PermissionError):
            os.nice(-10)
        rows = [measure(case, make, shape, seconds[case], folder) for case, (make, shape) in asked.items()]
    notes = {"rounds": ROUNDS, "repeats": REPEATS, "niceness": os.nice(0), "target": host_target()}
    shown = [column for column in rows[0] if "p25" not in column]
    record("compile", rows, title="One thread, medians", seeds=[SEED], notes=notes, shown=shown)
    failures = missed(rows)
    for failure in failures:
        print("missed:", failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
