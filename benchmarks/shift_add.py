"""Multiplications, shifts and additions on the digits: their weights, one tensor for all of them, and energy.

    python benchmarks/shift_add.py [weights] [penalties] [sharing]

1. Weights of networks of one operator alone: accuracy, spread, excess kurtosis (Gauss 0, Laplace 3).
2. Penalties on a distribution: where 3,000 steps of Adam bring a Gaussian tensor that is to become Laplacian.
3. One tensor for all operators: accuracy that subnets inherit from supernets that share it in several ways.
4. Energy: fronts of accuracy and energy of the hybrid space beside those of convolutions alone, which have a supernet
   of their own and are evaluated exhaustively. Both accountings; the energy is modelled (`hwnas.engine.energy`). The
   hybrid supernets are those whose subnets do best on the validation split.
Without a name all parts are run; "sharing" is 3 and 4. Choices and searches see the validation split, accuracies and
hypervolumes are those of the test split.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # a seed's weights depend on the number of threads

import numpy as np
import torch
from scipy.stats import kurtosis

from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms import make
from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.dataset import Dataset, Split, split
from hwnas.engine.energy import Accounting, block_energy_uj
from hwnas.engine.evaluation.inherited import InheritedAccuracy
from hwnas.engine.front import non_dominated, normalised_hypervolume
from hwnas.engine.journal import Journal
from hwnas.engine.spaces import hybrid
from hwnas.engine.spaces.hybrid import HybridSpace
from hwnas.engine.spaces.hybrid.space import Sharing
from hwnas.engine.tasks import digits
from hwnas.engine.training.criteria.weight_distribution import Config as PenaltyConfig
from hwnas.engine.training.criteria.weight_distribution import Kind, WeightDistribution
from hwnas.engine.training.trainer import Trainer, TrainingConfig

sys.path.insert(0, str(Path(__file__).parent))
from record import Row, record

SEEDS = range(3)
WIDTHS = (4, 8, 12)
EPOCHS = 50  # of a network of one operator
SHARED_EPOCHS = 40  # of a supernet
EVALUATIONS, POPULATION = 200, 20
SUBNETS = 20  # with an addition, whose inherited accuracy is averaged
ACCOUNTINGS: tuple[Accounting, ...] = ("equal", "released")
PENALTY = {"name": "weight_distribution", "weight": 10.0}
# name -> how the tensor is shared, penalty
ARMS: dict[str, tuple[Sharing, dict[str, object] | None]] = {
    "a tensor each": ("separate", None),
    "one tensor as it is": ("naive", None),
    "one tensor, mapped": ("mapped", None),
    "mapped, quantile": ("mapped", PENALTY),
    "mapped, quantile by shape": ("mapped", {**PENALTY, "gaussian_std": "own"}),
    "mapped, index_kl": ("mapped", {**PENALTY, "kind": "index_kl"}),
}


def space_of(sharing: Sharing, *, layers: int = 3, widths: Sequence[int] = WIDTHS) -> HybridSpace:
    """On 4x4 maps, as emulated additions are slow."""
    chain = tuple(hybrid.Layer(widths=tuple(widths)) for _ in range(layers))
    config = hybrid.Config(resolution=8, stem_width=12, stem_stride=2, layers=chain, sharing=sharing)
    return hybrid.build(config, in_channels=1, classes=10)


def trained(
    space: HybridSpace, data: Dataset, *, seed: int, penalty: dict[str, object] | None = None, epochs: int = EPOCHS
) -> torch.nn.Module:
    """A supernet behind `epochs` of uniform single paths."""
    torch.manual_seed(seed)
    config = TrainingConfig.model_validate(
        {
            "sampler": "uniform",
            "criterion": ["cross_entropy", *([penalty] if penalty else [])],
            "epochs": epochs,
            "evaluate_every": epochs,
            "seed": seed,
            # AdderNet's gradients have a norm of their own; clipping them to less would slow all others too
            "gradient_norm": 1e3,
        }
    )
    supernet = space.supernet()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(space, supernet, data, config, Path(folder)).run()
    return supernet


# ---- weights --------------------------------------------------------------------------------------------------------


def weights(data: Dataset) -> list[Row]:
    """Two searched layers of twelve channels, a network an operator and seed."""
    rows: list[Row] = []
    for operator in ("conv", "shift", "add"):
        figures = []
        for seed in SEEDS:
            space = space_of("separate", layers=2, widths=(12,)).with_operators(operator)
            supernet = trained(space, data, seed=seed)
            only = arch.extreme(space.genes, largest=True)
            accuracy = evaluator(space, supernet, data).accuracy(only, data.test)
            tensors = [w.detach().flatten().numpy() for _, w in supernet.operator_weights()]  # type: ignore[operator]
            figures += [(accuracy, float(w.std()), float(kurtosis(w))) for w in tensors]
        accuracy, std, excess = np.array(figures).T
        rows.append(
            {
                "operator": operator,
                "accuracy_median": float(np.median(accuracy)),
                "accuracy_least": float(accuracy.min()),
                "accuracy_most": float(accuracy.max()),
                "std_median": float(np.median(std)),
                "std_least": float(std.min()),
                "std_most": float(std.max()),
                "kurtosis_median": float(np.median(excess)),
                "kurtosis_least": float(excess.min()),
                "kurtosis_most": float(excess.max()),
            }
        )
    return rows


def penalties() -> list[Row]:
    """From N(0, 1) towards Laplace(0, 2), whose standard deviation is 2.83, with either penalty alone."""
    rows: list[Row] = []
    kinds: tuple[Kind, ...] = ("quantile", "index_kl")
    for kind in kinds:
        for numbers in (64, 4608):
            figures = []
            for seed in SEEDS:
                torch.manual_seed(seed)
                weight = torch.nn.Parameter(torch.randn(numbers))
                criterion = WeightDistribution(PenaltyConfig(kind=kind, seed=seed))
                optimizer = torch.optim.Adam([weight], lr=0.01)
                first = 0.0
                for step in range(3000):
                    optimizer.zero_grad()
                    criterion.penalty(weight, laplacian=True).backward()  # type: ignore[no-untyped-call]  # torch
                    assert weight.grad is not None
                    first = first if step else float(weight.grad.norm())
                    optimizer.step()
                found = weight.detach().numpy()
                figures.append((float(found.std()), float(kurtosis(found)), first))
            std, excess, gradient = np.median(np.array(figures), axis=0)
            rows.append(
                {"penalty": kind, "numbers": numbers, "std": std, "excess kurtosis": excess, "first gradient": gradient}
            )
    return rows


# ---- sharing and energy ---------------------------------------------------------------------------------------------


def evaluator(space: HybridSpace, supernet: torch.nn.Module, data: Dataset) -> InheritedAccuracy:
    return InheritedAccuracy(space, supernet, data, Journal(":memory:"))


def with_an_addition(space: HybridSpace, n: int) -> IntArray:
    """The same `n` random architectures for every arm and seed, each with an addition layer."""
    drawn = np.unique(arch.sample(space.genes, 20 * n, np.random.default_rng(7)), axis=0)
    operators = [i for i, gene in enumerate(space.genes) if gene.name.endswith(".operator")]
    drawn = drawn[(drawn[:, operators] == 0).any(1)]  # additions come first
    return drawn[np.random.default_rng(8).permutation(len(drawn))[:n]]


def accuracies(
    space: HybridSpace, supernet: torch.nn.Module, data: Dataset, X: IntArray, *, on: Split | None = None
) -> FloatArray:
    """On the test split if none is given, (n,)."""
    found = evaluator(space, supernet, data)
    answers = dict(found.answers([arch.to_architecture(row) for row in X], on or data.test))
    return np.array([answers[arch.to_architecture(row)].mean() for row in X])


def front(
    space: HybridSpace, supernet: torch.nn.Module, data: Dataset, energy: AdditiveCost, *, seed: int, exhaustive: bool
) -> tuple[IntArray, int]:
    """(architectures that nothing beats on the validation split, evaluations)."""
    errors = evaluator(space, supernet, data).errors
    algorithm = make(
        "exhaustive" if exhaustive else "nsga2",
        space.genes,
        population=POPULATION,
        rng=np.random.default_rng([seed, 3]),
        initial=None if exhaustive else np.array([energy.minimum()[0], arch.extreme(space.genes, largest=True)]),
    )
    seen: list[IntArray] = []
    told: list[FloatArray] = []
    while sum(map(len, seen)) < EVALUATIONS and len(X := algorithm.ask()):
        costs = np.stack([errors(X), energy(X)], axis=1)
        algorithm.tell(X, costs, np.zeros(len(X)))
        seen.append(X)
        told.append(costs)
    X, costs = np.concatenate(seen), np.concatenate(told)
    return X[non_dominated(costs)], len(X)


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(median(values)), "least": float(min(values)), "most": float(max(values))}


def main(parts: Sequence[str]) -> int:
    unknown = sorted(set(parts) - {"weights", "penalties", "sharing"})
    if unknown:
        print(f"no part is called {unknown[0]!r}: choose from weights, penalties, sharing")
        return 2
    torch.set_num_threads(1)
    data = split(digits.load(digits.Config()), validation=0.2, test=0.3)
    if not parts or "weights" in parts:
        record(
            "shift_add_weights",
            weights(data),
            title="networks of one operator, two searched layers of 12 channels",
            seeds=SEEDS,
            notes={"images": data.sizes, "epochs": EPOCHS},
            shown=("operator", "accuracy_median", "std_median", "kurtosis_median", "kurtosis_least", "kurtosis_most"),
        )
    if not parts or "penalties" in parts:
        title = "from N(0, 1) to Laplace(0, 2): std 2.83, kurtosis 3"
        record("shift_add_penalties", penalties(), title=title, seeds=SEEDS)
    if not parts or "sharing" in parts:
        sharing_and_energy(data)
    return 0


def sharing_and_energy(data: Dataset) -> None:
    began = time.process_time()
    note: dict[str, object] = {"images": data.sizes, "epochs": SHARED_EPOCHS, "threads": 1}
    supernets: dict[str, list[torch.nn.Module]] = {}
    validated: dict[str, float] = {}
    rows: list[Row] = []
    for name, (sharing, penalty) in ARMS.items():
        space = space_of(sharing)
        X = with_an_addition(space, SUBNETS)
        supernets[name] = [trained(space, data, seed=seed, penalty=penalty, epochs=SHARED_EPOCHS) for seed in SEEDS]
        added = [float(accuracies(space, each, data, X).mean()) for each in supernets[name]]
        plain = space.with_operators("conv", "shift")
        others = arch.sample(plain.genes, SUBNETS, np.random.default_rng(9))
        without = [float(accuracies(space, each, data, others).mean()) for each in supernets[name]]
        both = np.concatenate([X, others])
        validated[name] = median(accuracies(space, s, data, both, on=data.validation).mean() for s in supernets[name])
        parameters = sum(p.numel() for layer in supernets[name][0].layers for p in layer.weights.values())  # type: ignore[union-attr]
        rows.append(
            {
                "weights": name,
                "numbers": parameters,
                **{f"with additions, {key}": value for key, value in spread(added).items()},
                **{f"without, {key}": value for key, value in spread(without).items()},
            }
        )
    record(
        "shift_add_sharing",
        rows,
        title=f"mean inherited test accuracy of {SUBNETS} subnets with an addition layer, and of {SUBNETS} without",
        seeds=SEEDS,
        notes={**note, "subnets": SUBNETS},
    )

    searched = max((name for name in ARMS if ARMS[name][0] == "mapped"), key=lambda name: validated[name])
    shared, alone = space_of("mapped"), space_of("separate").with_operators("conv")
    own = [trained(alone, data, seed=seed, epochs=SHARED_EPOCHS) for seed in SEEDS]
    rows = []
    for accounting in ACCOUNTINGS:
        cost: Callable[..., float] = lambda block, a=accounting: block_energy_uj(block, accounting=a)  # noqa: E731
        energy = AdditiveCost.of(shared, cost)
        dearest = float(energy(np.array([arch.extreme(shared.genes, largest=True)]))[0])
        cheapest = energy.minimum()[1]
        contestants = {
            "hybrid": (shared, supernets[searched], False),
            "hybrid, a tensor each": (space_of("separate"), supernets["a tensor each"], False),
            "convolutions of the hybrid": (shared.with_operators("conv"), supernets[searched], True),
            "convolutions alone": (alone, own, True),
        }
        for name, (space, nets, exhaustive) in contestants.items():
            volumes, best, evaluations = [], [], 0
            for seed, net in zip(SEEDS, nets, strict=True):
                X, evaluations = front(space, net, data, energy, seed=seed, exhaustive=exhaustive)
                costs = np.stack([1 - accuracies(space, net, data, X), energy(X)], axis=1)
                volumes.append(normalised_hypervolume(costs, ideal=(0, cheapest), reference=(0.5, dearest)))
                best.append(float(1 - costs[:, 0].min()))
            rows.append(
                {
                    "accounting": accounting,
                    "space": name,
                    "evaluations": evaluations,
                    **{f"hypervolume, {key}": value for key, value in spread(volumes).items()},
                    "best accuracy, median": float(median(best)),
                }
            )
    record(
        "shift_add_energy",
        rows,
        title="test accuracy and modelled energy; box: error 0 to 0.5, cheapest to dearest of the hybrid space",
        seeds=SEEDS,
        notes={**note, "searched": searched, "validated": validated, "cpu_s": round(time.process_time() - began)},
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
