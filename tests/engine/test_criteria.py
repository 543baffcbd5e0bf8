"""Every criterion keeps the role's contract; each is least where its paper wants the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.engine import architecture as arch
from hwnas.engine.architecture import SearchSpace
from hwnas.engine.evaluation.batchnorm import statistics_kept
from hwnas.engine.training import criteria
from hwnas.engine.training.checkpoint import CheckpointError
from hwnas.engine.training.criteria import Criterion, Features, Term, TrainedPath, TrainingStep, WeightedSum
from hwnas.engine.training.features import Taps
from hwnas.engine.training.samplers import PathRole
from tests.engine.test_spaces import made
from tests.engine.training_runs import trainer

NAMES = plugin_names(criteria)
IMAGES, LABELS = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 4, 5])
CHAIN = made("chain")
LARGEST, SMALLEST = (arch.extreme(CHAIN.genes, largest=largest) for largest in (True, False))
TAPS = ("layers.s2_b1",)


def make(name: str, **options: object) -> Criterion:
    return criteria.make(name, options, label_smoothing=0.0)


def space_of(name: str) -> SearchSpace:
    """The space that a criterion says it is for, else a chain."""
    return made(getattr(load_plugin(criteria, name), "SPACE", "chain"))


class Bench:
    """One supernet, and paths through it as a trainer would show them to a criterion."""

    def __init__(self, criterion: Criterion, space: SearchSpace = CHAIN) -> None:
        torch.manual_seed(0)
        self.supernet, self.criterion = space.supernet(), criterion
        self.taps = Taps(self.supernet, [name for name, _ in self.supernet.named_modules() if name])
        self.taps.__enter__()
        with torch.no_grad():
            criterion.prepare(self.supernet, self.run(arch.extreme(space.genes, largest=True))[1])
        self.supernet.train()

    def run(self, architecture: arch.Architecture) -> tuple[Tensor, Features]:
        self.supernet.activate(architecture)  # type: ignore[operator]  # a Supernet
        return self.supernet(IMAGES), self.taps.taken()

    def ask(self, architecture: arch.Architecture) -> tuple[Tensor, Features]:
        with torch.no_grad(), statistics_kept(self.supernet):
            return self.run(architecture)

    def distance(self, path: TrainedPath) -> float:
        return self.criterion(path).item()

    def begin(self, *architectures: arch.Architecture) -> None:
        self.criterion.begin(TrainingStep(self.supernet, IMAGES, LABELS, 0.5, architectures, self.ask))

    def path(
        self, architecture: arch.Architecture, role: PathRole, teacher: tuple[Tensor, Features] | None = None
    ) -> TrainedPath:
        logits, features = self.run(architecture)
        path = TrainedPath(self.supernet, architecture, role, logits, LABELS, 0.5, features)
        if teacher is None:
            return path
        taught = {name: feature.detach() for name, feature in teacher[1].items()}
        return replace(path, teacher=teacher[0].detach(), teacher_features=taught)


# ---- contract -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_criterion_is_a_finite_scalar_with_a_gradient_for_every_role(name: str) -> None:
    space = space_of(name)
    largest, smallest = (arch.extreme(space.genes, largest=largest) for largest in (True, False))
    bench = Bench(make(name), space)
    bench.begin(largest, smallest)
    teacher = bench.run(largest)
    for role, architecture in (("largest", largest), ("smallest", smallest), ("random", smallest), ("pair", smallest)):
        loss = bench.criterion(bench.path(architecture, role, None if role == "largest" else teacher))  # type: ignore[arg-type]
        assert loss.dim() == 0
        assert torch.isfinite(loss)
        loss.backward()  # type: ignore[no-untyped-call]  # torch


@pytest.mark.parametrize("name", NAMES)
def test_a_criterion_works_in_a_training(name: str, tmp_path: Path) -> None:
    job = trainer(tmp_path, space_of(name), epochs=1, limit=120, criterion=["cross_entropy", name])
    (record,) = job.run()
    assert record.loss > 0


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="no_such_option"):
        make(name, no_such_option=1)


# ---- each its own ---------------------------------------------------------------------------------------------------


def logits_path(logits: list[float], teacher: list[float] | None, role: PathRole = "random") -> TrainedPath:
    asked = None if teacher is None else torch.tensor([teacher])
    return TrainedPath(nn.Identity(), (0,), role, torch.tensor([logits]), torch.tensor([2]), 0.5, {}, asked)


@pytest.mark.parametrize("name", ["in_place_distillation", "logit_distillation"])
def test_distillation_is_least_where_the_student_agrees(name: str) -> None:
    criterion = make(name)
    teacher = [2.0, 0.0, -1.0]
    agreed, *others = (
        float(criterion(logits_path(logits, teacher))) for logits in (teacher, [3.0, 0.0, -1.0], [0.0, 0.0, 5.0])
    )
    assert agreed < min(others)


def test_the_temperature_scales_as_hinton_says() -> None:
    student, teacher, t = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[0.3, 0.1, -0.7]]), 3.0
    expected = t * t * ((teacher / t).softmax(1) * ((teacher / t).log_softmax(1) - (student / t).log_softmax(1))).sum()
    found = make("logit_distillation", temperature=t)(logits_path(student[0].tolist(), teacher[0].tolist()))
    assert float(found) == pytest.approx(float(expected))


def test_a_trained_supernet_teaches(tmp_path: Path) -> None:
    trainer(tmp_path / "teacher", epochs=1).run()
    job = trainer(tmp_path, epochs=1, criterion={"name": "logit_distillation", "teacher": str(tmp_path / "teacher")})
    assert job.run()[0].loss > 0


def test_a_teacher_that_is_not_there_is_named(tmp_path: Path) -> None:
    criterion = make("logit_distillation", teacher=tmp_path / "nobody")
    with pytest.raises(CheckpointError, match=r"nobody: no checkpoint to be taught by"):
        Bench(criterion)


def test_a_pair_pulls_the_larger_down_and_leaves_the_smaller_alone() -> None:
    criterion = make("pairwise_rank")

    def loss(smaller: list[float], larger: list[float]) -> tuple[float, float]:
        criterion.begin(TrainingStep(nn.Identity(), IMAGES, LABELS, 0.0, (), lambda _: (IMAGES, {})))
        first, second = (criterion(logits_path(logits, None, "pair")) for logits in (smaller, larger))
        return float(first), float(second)

    good, bad = [0.0, 0.0, 3.0], [0.0, 0.0, 1.0]
    expected = F.cross_entropy(torch.tensor([bad]), torch.tensor([2])) - F.cross_entropy(
        torch.tensor([good]), torch.tensor([2])
    )
    assert loss(good, bad) == (0.0, pytest.approx(float(expected)))
    assert loss(bad, good) == (0.0, 0.0)


@pytest.mark.parametrize("match", ["mse", "channel_max"])
@pytest.mark.parametrize("projector", ["slice", "linear"])
def test_features_of_the_teacher_itself_are_at_no_distance(match: str, projector: str) -> None:
    bench = Bench(make("feature_distillation", taps=TAPS, match=match, projector=projector))
    bench.begin(LARGEST, SMALLEST)
    teacher = bench.run(LARGEST)
    assert bench.distance(bench.path(LARGEST, "random", teacher)) == pytest.approx(0.0, abs=1e-9)
    assert bench.distance(bench.path(SMALLEST, "random", teacher)) > 0


def test_a_dead_teacher_does_not_drive_the_student_away() -> None:
    criterion = make("feature_distillation", taps=TAPS)
    student = torch.full((6, 8, 4, 4), 3.0, requires_grad=True)
    features = {TAPS[0]: student}
    dead = {TAPS[0]: torch.zeros(6, 16, 4, 4)}
    path = TrainedPath(nn.Identity(), (0,), "random", torch.zeros(6, 10), LABELS, 0.5, features, IMAGES, dead)
    loss = criterion(path)
    loss.backward()  # type: ignore[no-untyped-call]  # torch
    assert loss.item() <= 2
    assert student.grad is not None
    assert float(student.grad.norm()) < 1


def test_an_anchor_is_replaced_by_a_path_that_is_clearly_better() -> None:
    bench = Bench(make("feature_distillation", taps=TAPS, teacher="anchor", replace_below=1.0))
    bench.begin(LARGEST)
    asked = F.cross_entropy(bench.ask(LARGEST)[0], LABELS)
    path = bench.path(SMALLEST, "random")
    bench.criterion(path)
    better = bool(F.cross_entropy(path.logits, LABELS) < asked)
    assert bench.criterion.state() == {"anchor": list(SMALLEST if better else LARGEST)}


def test_asking_an_architecture_leaves_no_trace() -> None:
    bench = Bench(make("cross_entropy"))
    before = {name: tensor.clone() for name, tensor in bench.supernet.state_dict().items()}
    bench.ask(SMALLEST)
    assert all(torch.equal(before[name], tensor) for name, tensor in bench.supernet.state_dict().items())
    bench.run(SMALLEST)
    assert any(not torch.equal(before[name], tensor) for name, tensor in bench.supernet.state_dict().items())


def test_a_tap_that_the_supernet_does_not_have_is_named() -> None:
    with pytest.raises(ValueError, match=r"'layers\.s9' is no tap"):
        Bench(make("feature_distillation", taps=("layers.s9",)))


def test_terms_add_up_by_their_weights_and_ramps() -> None:
    path = logits_path([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    parts = [make("cross_entropy"), make("logit_distillation")]
    whole = WeightedSum((Term("a", parts[0], 2.0), Term("b", parts[1], 3.0, ramp=0.8)))
    expected = 2 * parts[0](path) + 3 * (0.5 / 0.8) * parts[1](path)
    assert float(whole(path)) == pytest.approx(float(expected))
    assert Term("b", parts[1], 3.0, ramp=0.2).weight_at(0.5) == 3.0
