"""Exported folders, with real artefacts of a small MobileNetV3."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_model
from torch import nn

from hwnas.devices import Device, Protocol, Runner, open_runner
from hwnas.devices.compile import Artefact, CompileJob, Compiler, host_target
from hwnas.engine import architecture as arch
from hwnas.engine.evaluation.batchnorm import recalibrate
from hwnas.engine.export import (
    ExportError,
    ExportRecord,
    Origin,
    artefacts,
    export_point,
    folder_name,
    verify_export,
)
from hwnas.engine.front import FrontPoint
from hwnas.engine.quantisation import QuantisedLayer, quantised
from hwnas.engine.spaces.mobilenet_v3 import Config, MobileNetV3Space, Stage, build

CONFIG = Config(
    resolutions=(12, 16),
    stem_width=8,
    stages=(
        Stage(widths=(8,), depths=(1, 2), kernels=(3, 5), expansions=(2, 4)),
        Stage(widths=(16,), depths=(1,), kernels=(3,), expansions=(3,), stride=2, se=True, activation="hswish"),
    ),
    head_width=32,
    head_features=32,
)
ORIGIN = Origin(
    space=CONFIG.model_dump(),
    mean=(0.3,),
    std=(0.35,),
    classes=tuple("0123456789"),
    device="this machine",
    protocol=Protocol(rounds=1, repeats=7),
)
FILES = {"weights.safetensors", "program.pt2", "model.onnx", "model.so", "architecture.json", "latency.json"}


@dataclass(frozen=True)
class Made:
    """A calibrated subnet, its supernet and its library on an open runner."""

    space: MobileNetV3Space
    supernet: nn.Module
    point: FrontPoint
    network: nn.Module
    library: Path
    runner: Runner

    def export(self, folder: Path, **changed: object) -> ExportRecord:
        given = {
            "point": self.point,
            "network": self.network,
            "reference": None,
            "input_shape": self.space.input_shape(self.point.architecture),
            "artefact": self.library,
            "runner": self.runner,
            "folder": folder,
            "provenance": ORIGIN,
        }
        return export_point(**{**given, **changed})  # type: ignore[arg-type]


def randomised(network: nn.Module) -> nn.Module:
    """The network with statistics that a layer left out or folded wrongly would show in."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
    return network


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    torch.manual_seed(0)
    space = build(CONFIG, in_channels=1, classes=10)
    architecture = arch.extreme(space.genes, largest=True)
    supernet = randomised(space.supernet()).eval()
    shape = space.input_shape(architecture)
    recalibrate(supernet, [torch.randn(32, *shape)])
    network: nn.Module = supernet.subnet(architecture)  # type: ignore[operator]
    point = FrontPoint(
        architecture=architecture,
        genes=arch.to_json(space.genes, architecture),
        accuracy_validation=0.9,
        accuracy_test=0.91,
        latency_predicted_ms=0.1,
        latency_std_ms=0.01,
        latency_ms=0.12,
        latency_ci_ms=(0.11, 0.13),
        latency_p99_ms=0.2,
        macs=1000,
        params=2000,
        verified=True,
    )
    job = CompileJob(partial(copy.deepcopy, network), ((1, *shape),), "test network")
    with Compiler(host_target(), cache=tmp_path_factory.mktemp("cache"), workers=1) as compiler:
        ((_, library),) = compiler.compile([job])
    assert isinstance(library, Artefact), library
    runner = open_runner(Device("this machine", host_target()))
    yield Made(space, supernet, point, network, library.path, runner)
    runner.close()


@pytest.fixture(scope="module")
def exported(made: Made, tmp_path_factory: pytest.TempPathFactory) -> ExportRecord:
    return made.export(tmp_path_factory.mktemp("export") / "point-01-0.12ms", reference=made.supernet)


ONLY_LIBRARY = ("weights.safetensors", "program.pt2", "model.onnx")  # to leave out, where a test is not about them


def test_a_folder_holds_every_artefact_and_its_checksum(exported: ExportRecord) -> None:
    assert {path.name for path in exported.folder.iterdir()} == {*FILES, "manifest.json"}
    assert {file.name for file in exported.files} == FILES
    assert verify_export(exported.folder) == []
    assert [path.name for path in exported.folder.parent.iterdir()] == [exported.folder.name]


def test_every_artefact_computes_what_the_network_and_the_supernet_compute(exported: ExportRecord) -> None:
    manifest = json.loads((exported.folder / "manifest.json").read_text())
    assert set(exported.parity) == {"supernet", "weights.safetensors", "program.pt2", "model.onnx", "model.so"}
    assert max(exported.parity.values()) < 1e-5
    assert manifest["parity"]["model.so"] == {"relative_difference": exported.parity["model.so"], "limit": 1e-4}
    assert manifest["versions"]["torch"] == torch.__version__


def test_the_weights_fit_the_subnet_that_the_space_builds(made: Made, exported: ExportRecord) -> None:
    written = json.loads((exported.folder / "architecture.json").read_text())
    space = build(Config.model_validate(written["space"]), in_channels=1, classes=10)
    architecture = arch.from_json(space.genes, written["genes"])
    assert architecture == tuple(written["indices"])
    fresh: nn.Module = space.supernet().subnet(architecture)  # type: ignore[operator]
    load_model(fresh, exported.folder / "weights.safetensors")
    images = torch.randn(2, *written["input"]["shape"][1:])
    assert torch.equal(fresh(images), made.network(images))
    assert written["input"]["mean"] == [0.3]


def test_the_latency_file_has_the_raw_figures(made: Made, exported: ExportRecord) -> None:
    latency = json.loads((exported.folder / "latency.json").read_text())
    assert (latency["latency_ms"], latency["latency_ci_ms"], latency["latency_p99_ms"]) == (0.12, [0.11, 0.13], 0.2)
    assert latency["protocol"]["repeats"] == 7


def test_the_onnx_model_is_valid_and_of_the_stated_opset(exported: ExportRecord) -> None:
    model = onnx.load(exported.folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    manifest = json.loads((exported.folder / "manifest.json").read_text())
    assert [entry.version for entry in model.opset_import] == [manifest["onnx_opset"]]


def test_a_quantised_network_leaves_as_weights_and_as_integers(made: Made, tmp_path: Path) -> None:
    network = quantised(made.network, bits=8)
    recalibrate(network, [torch.randn(32, *made.space.input_shape(made.point.architecture))])
    record = made.export(tmp_path / "point", network=network, without={"model.so"})
    assert set(record.parity) == {"weights.safetensors", "model.onnx"}  # a program would be a simulation in floats
    manifest = json.loads((record.folder / "manifest.json").read_text())
    assert manifest["parity"]["model.onnx"]["limit"] == 0.05
    model = onnx.load(record.folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [manifest["onnx_opset"]]
    stored = {weights.data_type for weights in model.graph.initializer if len(weights.dims) == 4}
    assert stored == {onnx.TensorProto.INT8}
    worn = copy.deepcopy(network)
    last = [module for module in worn.modules() if isinstance(module, QuantisedLayer)][-1]
    last.weight = -last.weight
    with pytest.raises(ExportError, match=r"supernet differs from the network by 1"):
        made.export(tmp_path / "worn", network=network, reference=worn, without={"model.so"})


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_byte_is_found(exported: ExportRecord, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in exported.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    changed = bytearray((folder / name).read_bytes())
    changed[len(changed) // 2] ^= 1
    (folder / name).write_bytes(changed)
    (difference,) = verify_export(folder)
    assert difference.startswith(f"{name}: SHA-256 ")


def test_a_missing_file_and_a_cut_one_are_found(exported: ExportRecord, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((exported.folder / "manifest.json").read_bytes())
    (tmp_path / "model.so").write_bytes(b"ELF")
    assert "model.onnx: missing" in verify_export(tmp_path)
    assert any(line.startswith("model.so: 3 bytes, the manifest says ") for line in verify_export(tmp_path))


def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    files = [{"name": "../secret", "sha256": "0", "bytes": 0}]
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}))
    assert verify_export(tmp_path) == ["../secret: not the name of a file in this folder"]


def test_a_folder_without_a_manifest_is_no_export(tmp_path: Path) -> None:
    assert verify_export(tmp_path) == ["manifest.json: cannot be read (No such file or directory)"]
    (tmp_path / "manifest.json").write_text("{}")
    assert verify_export(tmp_path)[0].startswith("manifest.json: not the manifest of an export")


def test_a_library_of_other_weights_is_refused_and_leaves_nothing(made: Made, tmp_path: Path) -> None:
    other = copy.deepcopy(made.network)
    next(other.parameters()).data.mul_(1.01)
    with pytest.raises(ExportError, match=r"^model\.so differs from the network by \S+ of its largest output"):
        made.export(tmp_path / "point", network=other, without=ONLY_LIBRARY)
    assert list(tmp_path.iterdir()) == []


def test_statistics_that_the_supernet_has_not_are_refused(made: Made, tmp_path: Path) -> None:
    other = recalibrate(copy.deepcopy(made.network), [torch.ones(4, 1, 16, 16) + torch.randn(4, 1, 16, 16)])
    with pytest.raises(ExportError, match=r"^supernet differs from the network by "):
        made.export(tmp_path / "point", network=other, reference=made.supernet)


def test_an_export_takes_the_place_of_an_older_one(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "point"
    made.export(folder, without=ONLY_LIBRARY)
    (folder / "left over").write_text("from before")
    made.export(folder, point=replace(made.point, latency_ms=0.5), without=ONLY_LIBRARY)
    assert json.loads((folder / "latency.json").read_text())["latency_ms"] == 0.5
    assert verify_export(folder) == []
    assert sorted(path.name for path in tmp_path.rglob("*") if path != folder) == [
        "architecture.json",
        "latency.json",
        "manifest.json",
        "model.so",
    ]


def test_an_export_that_fails_leaves_the_older_one(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "point"
    made.export(folder, without=ONLY_LIBRARY)
    other = copy.deepcopy(made.network)
    next(other.parameters()).data.mul_(1.01)
    with pytest.raises(ExportError):
        made.export(folder, network=other, without=ONLY_LIBRARY)
    assert verify_export(folder) == []
    assert list(tmp_path.iterdir()) == [folder]


def test_an_artefact_that_does_not_exist_cannot_be_left_out(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no artefact is called 'onnx': they are weights\.safetensors, "):
        made.export(tmp_path / "point", without=["onnx"])


def test_a_folder_that_is_no_export_is_left_alone(made: Made, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="exists and is no export: move it away"):
        made.export(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_place_that_cannot_be_written_is_one_line_with_the_cure(made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"cannot be written .*choose another folder") as caught:
        made.export(tmp_path / "file" / "point")
    assert "\n" not in str(caught.value)


def test_a_library_that_is_gone_is_named(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"gone\.so is not there: compile"):
        made.export(tmp_path / "point", artefact=tmp_path / "gone.so")


def test_a_missing_onnx_names_the_extra(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"pip install 'hwnas\[export\]'"):
        made.export(tmp_path / "point", without=ONLY_LIBRARY[:2])
    made.export(tmp_path / "point", without=ONLY_LIBRARY)


def test_an_export_says_nothing_on_the_terminal(
    made: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    made.export(tmp_path / "point")
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []


def test_a_difference_that_is_no_number_is_above_every_limit() -> None:
    expected = np.array([[1.0, -2.0]])
    assert artefacts.difference(np.array([[1.0, -1.0]]), expected) == 0.5
    assert artefacts.difference(np.array([[1.0, np.nan]]), expected) == float("inf")
    assert artefacts.difference(np.array([1.0, -2.0]), expected) == float("inf")


def test_a_folder_is_named_by_rank_and_latency(made: Made) -> None:
    assert folder_name(3, replace(made.point, latency_ms=1.2361)) == "point-03-1.24ms"
