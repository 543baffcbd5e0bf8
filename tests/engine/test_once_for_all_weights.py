"""Checkpoints of Once-for-All: the same networks there and here."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.dataset import DataError
from hwnas.engine.evaluation.complexity import block_params
from hwnas.engine.spaces.mobilenet_v3.once_for_all_encoding import to_encoding
from hwnas.engine.spaces.mobilenet_v3.once_for_all_weights import load_weights, read_weights
from hwnas.engine.spaces.mobilenet_v3.supernet import ElasticMobileNetV3
from hwnas.engine.spaces.once_for_all import Config, build, once_for_all_space
from tests.engine.once_for_all_package import as_theirs, pictures, their_supernet

SMALL = once_for_all_space(0.2, resolutions=[32], classes=10)


def small_checkpoint() -> dict[str, Tensor]:
    """The tensors of a random supernet of SMALL as the package would have kept them."""
    torch.manual_seed(5)
    return as_theirs(ElasticMobileNetV3(SMALL))


def loaded(tensors: dict[str, Tensor]) -> nn.Module:
    supernet = ElasticMobileNetV3(SMALL)
    load_weights(supernet, tensors, source="w.pth")
    return supernet.eval()


@pytest.mark.parametrize(("width_mult", "subnets"), [(1.0, 20), (1.2, 5)])
@torch.no_grad()
def test_subnets_are_those_of_the_package(tmp_path: Path, width_mult: float, subnets: int) -> None:
    theirs = their_supernet(width_mult)
    torch.save({"epoch": 120, "state_dict": theirs.state_dict()}, tmp_path / "checkpoint")
    space = build(Config(width_mult=width_mult, weights=tmp_path / "checkpoint"), in_channels=3, classes=1000)
    ours = space.supernet().eval()
    shares = []  # of the logits that the images decide
    for row in arch.sample(space.genes, subnets, np.random.default_rng(0)):
        architecture = arch.to_architecture(row)
        encoding = to_encoding(space, architecture)
        theirs.set_active_subnet(ks=encoding["ks"], e=encoding["e"], d=encoding["d"])
        images = pictures(3, space.input_shape(architecture)[-1])
        assert images.shape[-1] == encoding["r"][0]
        expected = theirs(images)
        ours.activate(architecture)
        shares.append(float(expected.std(0).mean() / expected.abs().mean()))
        most = 1e-5 * float(expected.abs().max())
        assert float((ours(images) - expected).abs().max()) < most
        assert float((ours.subnet(architecture)(images) - expected).abs().max()) < most
    assert np.median(shares) > 0.05  # or any two networks would agree


@torch.no_grad()
def test_in_double_precision_nothing_but_rounding_is_left() -> None:
    theirs = their_supernet().double()
    space = once_for_all_space(resolutions=[64])
    ours = ElasticMobileNetV3(space).double().eval()
    load_weights(ours, theirs.state_dict(), source="memory")
    images = pictures(3, 64).double()
    for row in arch.sample(space.genes, 5, np.random.default_rng(1)):
        encoding = to_encoding(space, arch.to_architecture(row))
        theirs.set_active_subnet(ks=encoding["ks"], e=encoding["e"], d=encoding["d"])
        ours.activate(arch.to_architecture(row))
        expected = theirs(images)
        assert float((ours(images) - expected).abs().max()) < 1e-12 * float(expected.std(0).mean())


def test_subnets_have_the_parameters_of_the_package() -> None:
    theirs = their_supernet()
    space = once_for_all_space(resolutions=[224])
    X = arch.sample(space.genes, 5, np.random.default_rng(2))
    counts = []
    for row in X:
        encoding = to_encoding(space, arch.to_architecture(row))
        theirs.set_active_subnet(ks=encoding["ks"], e=encoding["e"], d=encoding["d"])
        counts.append(sum(p.numel() for p in theirs.get_active_subnet(preserve_weight=False).parameters()))
    assert AdditiveCost.of(space, block_params)(X).tolist() == counts


@torch.no_grad()
def test_every_generation_of_names_is_read() -> None:
    state = their_supernet(0.2, classes=10).state_dict()
    first = {name.replace(".conv.", ".mobile_inverted_conv.", 1) if name.startswith("blocks.") else name: tensor
             for name, tensor in state.items()}  # fmt: skip
    static = {
        name.replace(".conv.conv.", ".conv.").replace(".bn.bn.", ".bn."): tensor for name, tensor in first.items()
    }
    uncounted = {name: tensor for name, tensor in first.items() if "num_batches_tracked" not in name}
    images = torch.randn(1, 3, 32, 32)
    outputs = [loaded(tensors)(images) for tensors in (state, first, static, uncounted)]
    assert len({name for tensors in (state, first, static) for name in tensors}) > 2 * len(state)
    assert all(torch.equal(output, outputs[0]) for output in outputs)


@torch.no_grad()
def test_a_classifier_of_other_classes_begins_anew() -> None:
    tensors = small_checkpoint()
    tensors["classifier.linear.weight"] = torch.randn(1000, tensors["classifier.linear.weight"].shape[1])
    tensors["classifier.linear.bias"] = torch.randn(1000)
    supernet = ElasticMobileNetV3(SMALL)
    before = supernet.classify.weight.clone()
    assert not load_weights(supernet, tensors, source="w.pth")
    assert torch.equal(supernet.classify.weight, before)
    assert torch.equal(supernet.mix.weight[..., None, None], tensors["feature_mix_layer.conv.weight"])
    assert load_weights(supernet, small_checkpoint(), source="w.pth")


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("blocks.3.depth_conv.conv.7to5_matrix"),
            "1 of [0-9]+ tensors are not there, first 'blocks.3.depth_conv",
        ),
        (lambda tensors: {**tensors, "blocks.21.point_linear.conv.weight": torch.zeros(1)}, "'blocks.21.point_linear"),
        (lambda tensors: {**tensors, "first_conv.conv.weight": torch.zeros(16, 3, 3, 3)}, r"shape \(16, 3, 3, 3\)"),
        (lambda _: {}, "tensors are not there"),
    ],
)
def test_a_checkpoint_of_another_space_is_told(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    with pytest.raises(DataError, match=rf"w\.pth: .*{message}.*: give a file of Once-for-All"):
        loaded(change(small_checkpoint()))


def test_a_checkpoint_of_another_width_is_told() -> None:
    with pytest.raises(DataError, match="width_mult"):
        load_weights(ElasticMobileNetV3(once_for_all_space(0.4, classes=10)), small_checkpoint(), source="w.pth")


class Trap:
    """What unpickling would run."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (Path("sprung"), "")


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    return buffer.getvalue()


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        b"\x80\x02}q\x00.",
        pickle.dumps({"state_dict": Trap()}),
        _saved({"state_dict": Trap()}),
        _saved({"state_dict": {"first_conv.conv.weight": Trap()}}),
        _zip(),
        _saved({})[:-200],
        _saved(torch.zeros(3)),
        _saved({"state_dict": [torch.zeros(3)]}),
        _saved({"state_dict": {"first_conv.conv.weight": 3}}),
    ],
    ids=range(11),
)
def test_a_file_that_is_no_checkpoint_is_told_and_runs_nothing(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    space = once_for_all_space(0.2, resolutions=[32], classes=10, weights=path)
    with pytest.raises(DataError, match=r"w\.pth: .*: give a file of Once-for-All") as error:
        space.supernet()
    assert "\n" not in str(error.value)
    assert not Path("sprung").exists()


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_path_that_is_no_file_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_weights(tmp_path / name)


def test_images_of_another_depth_than_the_weights_are_told() -> None:
    space = once_for_all_space(0.2, resolutions=[32], in_channels=1, classes=10)
    with pytest.raises(DataError, match="first_conv"):
        load_weights(ElasticMobileNetV3(space), small_checkpoint(), source="w.pth")


def test_weights_that_no_subnet_uses_are_not_kept() -> None:
    supernet = ElasticMobileNetV3(SMALL)
    assert not [name for name in supernet.state_dict() if name.startswith("stages.0.0.expand")]
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    load_weights(supernet, small_checkpoint(), source="w.pth")
    after = supernet.state_dict()
    same = [name for name, tensor in before.items() if tensor.dim() > 1 and torch.equal(tensor, after[name])]
    assert [name for name in same if "transforms" not in name] == []  # the file decides everything
