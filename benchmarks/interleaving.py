"""Which long edges of a chain a search finds: planted ones, with edges trained together, in periods, or by chance.

    python benchmarks/interleaving.py [choose]

A random chain (teacher) of NODES nodes with its links and three or four long edges, frozen, maps digits to the vector
of its last node. A student, the whole L-chain over the same first node, learns to do the same; its edges have
strengths. The figure is the average precision of the strengths of long edges against those that the teacher has; a
random order has the share that they are of all, about 0.12. The arms differ in which edges train at a step alone:

- all edges at once, as a differentiable search trains them (a period of 1);
- periods of the reach and of one node more, which keep edges from interleaving (IF-NAS);
- scattered: each node has all its edges with a chance of one in five at every step, so edges do interleave though as
  few train together: what is left of the periods' effect if their order is taken away;
- random edges: each long edge by itself with that chance.

Every arm gives every edge as many updates; arms that train fewer edges at a step take more steps, and "all edges, as
many steps" shows what those steps alone are worth. As in the paper, strengths stand still for the first half, training
is one-level, and the loss of edge discretisation sets in late, weighed as in its released code.

Nodes are vectors here, an edge adds a linear map of the rectified source to the source, and a node is
normalised over the batch: so all arms and seeds are one batch of networks, and the whole takes about a CPU-minute.
Which edges train is drawn by the sampler of the space long_chain. Rates, features and updates were chosen by what "all
edges" found with seeds from 100 on (`choose`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
import torch
from scipy.stats import wilcoxon
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from torch import Tensor

from hwnas.engine.architecture import Architecture, BoolArray, FloatArray
from hwnas.engine.interleaving import chain_edges, is_interleaving_free, kept
from hwnas.engine.spaces import long_chain
from hwnas.engine.training import samplers

sys.path.insert(0, str(Path(__file__).parent))
from record import Row, record

NODES, REACH = 12, 4
SEEDS = 10
START, DISCRETISATION = 0.65, 0.0146  # of the training, and the weight at its end
MOMENTUM = 0.9


@dataclass(frozen=True)
class Setting:
    features: int = 8
    updates: int = 300
    batch: int = 64
    rate: float = 0.1
    strength_rate: float = 1.0


SPACE = long_chain.build(
    long_chain.Config(resolution=8, stages=(long_chain.Stage(nodes=NODES, channels=8),), reach=REACH),
    in_channels=1,
    classes=2,
)
EDGES = chain_edges(SPACE.genes)
INTO = [[i for i, edge in enumerate(EDGES) if edge.target == node] for node in range(1, NODES + 1)]
LINKS = np.array([edge.is_link for edge in EDGES])


# ---- which edges train ----------------------------------------------------------------------------------------------


def held(architecture: Architecture) -> BoolArray:
    """Which edges an architecture has, (edges,)."""
    pairs = set(kept(EDGES, architecture)["s1"])
    return np.array([(edge.source, edge.target) in pairs for edge in EDGES])


def periodic(period: int, order: str) -> Callable[[int, int], BoolArray]:
    """(seed, step) -> edges, by the engine's sampler."""
    known: dict[Architecture, BoolArray] = {}
    made: dict[int, samplers.Sampler] = {}
    options = {"period": period, "order": order}

    def draw(seed: int, step: int) -> BoolArray:
        if seed not in made:
            made[seed] = samplers.make(
                "interleaving_free", options, SPACE.genes, seed=seed, prior=lambda _: lambda X: np.ones(len(X))
            )
        architecture = made[seed].paths(step % period if order == "cyclic" else step)[0].architecture
        if architecture not in known:
            known[architecture] = held(architecture)
        return known[architecture]

    return draw


def random_edges(seed: int, step: int) -> BoolArray:
    return LINKS | (np.random.default_rng([seed, step, 7]).random(len(EDGES)) < 1 / (REACH + 1))


Arm = tuple[Callable[[int, int], BoolArray], int]  # and the steps for one update of every edge
ARMS: dict[str, Arm] = {
    "all edges": (periodic(1, "cyclic"), 1),
    "all edges, as many steps": (periodic(1, "cyclic"), REACH + 1),
    "interleaving-free, period L": (periodic(REACH, "cyclic"), REACH),
    "interleaving-free, period L + 1": (periodic(REACH + 1, "cyclic"), REACH + 1),
    "scattered nodes": (periodic(REACH + 1, "scattered"), REACH + 1),
    "random edges": (random_edges, REACH + 1),
}


# ---- chains, many at once -------------------------------------------------------------------------------------------


def shares(mask: Tensor, strengths: Tensor) -> list[Tensor]:
    """Of each node the weight of the edges into it, (networks, edges into it): as in the supernet of long_chain."""
    found = []
    for edges in INTO:
        here = mask[:, edges]
        count = here.sum(1, keepdim=True)
        several = 2 / count * strengths[:, edges].sigmoid()
        found.append(here * torch.where(count > 1, several, torch.ones(())))
    return found


def last_node(first: Tensor, maps: Tensor, weights: list[Tensor]) -> Tensor:
    """(networks, batch, features) of node 0, (networks, edges, features, features) -> the last node's."""
    outputs = [first]
    for edges, share in zip(INTO, weights, strict=True):
        sources = torch.stack([outputs[EDGES[i].source] for i in edges], dim=2)  # (networks, batch, edges, features)
        weighed = sources * share[:, None, :, None]
        rectified = (sources.relu() * share[:, None, :, None]).flatten(2)
        total = weighed.sum(2) + torch.bmm(rectified, maps[:, edges].flatten(1, 2))
        total = total - total.mean(1, keepdim=True)
        outputs.append(total / (total.square().mean(1, keepdim=True) + 1e-5).sqrt())
    return outputs[-1]


def drawn_maps(seeds: list[int], features: int, offset: int) -> Tensor:
    """(networks, edges, features, features), of as much variance as what they are added to."""
    shape = (len(EDGES), features, features)
    stacked = [np.random.default_rng([seed, offset]).normal(size=shape) * (2 / features) ** 0.5 for seed in seeds]
    return torch.tensor(np.array(stacked), dtype=torch.float32)


@dataclass(frozen=True)
class Found:
    precision: dict[str, list[float]]
    errors: dict[str, list[float]]
    spread: dict[str, list[float]]
    chance: list[float]


def unevenness(strengths: Tensor, mask: Tensor) -> Tensor:
    """The loss of edge discretisation of each network, (networks,), over the edges that it has."""
    weights, total = strengths.sigmoid(), torch.zeros(len(mask))
    for edges in INTO:
        here = mask[:, edges]
        count = here.sum(1, keepdim=True)
        mean = (weights[:, edges] * here).sum(1, keepdim=True) / count
        total = total + ((weights[:, edges] / mean + 1).log() * here * (count > 1)).sum(1)
    return total


def planted(seed: int) -> BoolArray:
    """Links, and three or four long edges."""
    rng = np.random.default_rng([seed, 1])
    mask = LINKS.copy()
    mask[rng.choice(np.flatnonzero(~LINKS), size=int(rng.integers(3, 5)), replace=False)] = True
    return mask


def trained(plan: list[tuple[str, int]], setting: Setting) -> tuple[FloatArray, FloatArray]:
    """Weights of all edges, (networks, edges), and the mean error over the last tenth, (networks,)."""
    digits = load_digits().images.reshape(-1, 64).astype(np.float32)
    images = torch.from_numpy((digits - digits.mean()) / digits.std())
    seeds = [seed for _, seed in plan]
    true = torch.tensor(np.array([planted(seed) for seed in seeds]), dtype=torch.float32)
    stems = [np.random.default_rng([seed, 3]).normal(size=(64, setting.features)) / 8 for seed in seeds]
    stem = torch.tensor(np.array(stems), dtype=torch.float32)
    teacher, teaching = drawn_maps(seeds, setting.features, 4), shares(true, torch.zeros(true.shape))
    maps = drawn_maps(seeds, setting.features, 5).requires_grad_()
    strengths = torch.zeros(true.shape).requires_grad_()
    moments = [torch.zeros_like(maps), torch.zeros_like(strengths)]
    lengths = torch.tensor([float(setting.updates * ARMS[name][1]) for name, _ in plan])
    errors = torch.zeros(len(plan))
    for step in range(int(lengths.max())):
        mask = torch.tensor(np.array([ARMS[name][0](seed, step) for name, seed in plan]), dtype=torch.float32)
        drawn = {seed: np.random.default_rng([seed, step, 6]).integers(0, 1797, setting.batch) for seed in set(seeds)}
        first = torch.bmm(images[torch.from_numpy(np.stack([drawn[seed] for seed in seeds]))], stem)
        with torch.no_grad():
            targets = last_node(first, teacher, teaching)
        progress = step / lengths
        loss = (last_node(first, maps, shares(mask, strengths)) - targets).square().mean((1, 2))
        ramp = DISCRETISATION * (progress - START).clamp(min=0) / (1 - START)
        gradients = torch.autograd.grad((loss + ramp * unevenness(strengths, mask)).sum(), [maps, strengths])
        running = (progress < 1).float()  # arms of fewer steps are through earlier
        rates = (
            (setting.rate * (1 - progress) * running)[:, None, None, None],
            (setting.strength_rate * (progress >= 0.5) * running)[:, None],
        )
        with torch.no_grad():
            for parameter, gradient, moment, rate in zip((maps, strengths), gradients, moments, rates, strict=True):
                moment.mul_(MOMENTUM).add_(gradient)
                parameter.sub_(rate * moment)
            errors += running * (progress >= 0.9) * loss / (0.1 * lengths)
    return strengths.detach().sigmoid().numpy().astype(np.float64), errors.numpy().astype(np.float64)


def searched(seeds: range, setting: Setting, names: list[str]) -> Found:
    """Every arm with every seed."""
    plan = [(name, seed) for name in names for seed in seeds]
    weights, errors = trained(plan, setting)
    result = Found({}, {}, {}, [float(planted(seed)[~LINKS].mean()) for seed in seeds])
    for (name, seed), found, error in zip(plan, weights[:, ~LINKS], errors, strict=True):
        score = average_precision_score(planted(seed)[~LINKS], found)
        result.precision.setdefault(name, []).append(float(score))
        result.errors.setdefault(name, []).append(float(error))
        result.spread.setdefault(name, []).append(float(found.std()))
    return result


def without_interleaving(name: str, seeds: range) -> float:
    """Share of steps in which no two edges interleave."""
    masks = [ARMS[name][0](seed, step) for seed in seeds for step in range(20)]
    pairs = ([(EDGES[e].source, EDGES[e].target) for e in np.flatnonzero(mask)] for mask in masks)
    return float(np.mean([is_interleaving_free(found) for found in pairs]))


def choose() -> None:
    for setting in (
        Setting(features=16, updates=200, rate=0.02, strength_rate=0.2),  # 0.17, where chance is 0.11
        Setting(features=16, updates=200),  # 0.18
        Setting(features=8, updates=200),  # 0.26
        Setting(features=16, updates=200, strength_rate=5.0),  # 0.17
    ):
        start = time.process_time()
        found = searched(range(100, 110), setting, ["all edges"])
        (scores,), (errors,), (spread,) = found.precision.values(), found.errors.values(), found.spread.values()
        print(
            f"{setting}: {np.mean(scores):.3f} (chance {np.mean(found.chance):.3f}), error {np.mean(errors):.3f}, "
            f"spread {np.mean(spread):.3f}, {time.process_time() - start:.0f} CPU seconds",
            flush=True,
        )


def main() -> None:
    seeds, setting = range(SEEDS), Setting()
    found = searched(seeds, setting, list(ARMS))
    reference = found.precision["all edges"]
    rows: list[Row] = []
    for name, scores in found.precision.items():
        differ = [a - b for a, b in zip(scores, reference, strict=True)]
        rows.append(
            {
                "edges that train": name,
                "average precision": round(float(np.median(scores)), 3),
                "mean": round(float(np.mean(scores)), 3),
                "least": round(min(scores), 3),
                "most": round(max(scores), 3),
                "chance": round(float(np.mean(found.chance)), 3),
                "mean difference to all edges": round(float(np.mean(differ)), 3),
                "p (Wilcoxon)": round(float(wilcoxon(differ).pvalue), 4) if any(differ) else None,
                "steps without interleaved edges": round(without_interleaving(name, seeds), 2),
                "spread of strengths": round(float(np.median(found.spread[name])), 4),
                "error of the student": round(float(np.median(found.errors[name])), 3),
            }
        )
    record(
        "interleaving",
        rows,
        title=f"planted long edges found: {NODES} nodes, reach {REACH}, {setting.updates} updates an edge",
        seeds=seeds,
        notes={"setting": vars(setting), "average_precision": found.precision, "errors": found.errors},
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:] == ["choose"]:
        choose()
    else:
        main()
