"""Gradients of two architectures on the weights they share, by how many operators they differ in.

    python benchmarks/interference.py

The claim of MAGIC (Xu et al., ICML 2022): the cosine falls with distance. A chain of six layers of six operators on
handwritten digits, after 500 steps of uniform single path; 400 pairs at each distance from 1 to 5, one batch of 200
images a seed. The control deals the distances out anew: it has to be flat.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from ranking_beds import OPERATORS
from record import Row, record

from hwnas.engine.dataset import split
from hwnas.engine.diagnostics import Interference, by_distance, interference, pairs_at, permuted
from hwnas.engine.spaces.chain import Config, Stage, build
from hwnas.engine.tasks import digits
from hwnas.engine.training.config import TrainingConfig
from hwnas.engine.training.trainer import Trainer

SEEDS, DISTANCES, PAIRS, IMAGES = (0, 1, 2), (1, 2, 3, 4, 5), 400, 200
STEPS = 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for seed in SEEDS[: arguments.seeds]:
        found = pairs_of(seed)
        shuffles = [by_distance(permuted(found, np.random.default_rng([seed, i]))) for i in range(200)]
        means = by_distance(found)
        values = {d: np.array([each.mean for each in found if each.distance == d and each.cosines]) for d in DISTANCES}
        rows.append(
            {
                "seed": seed,
                **{f"distance {d}": round(means[d], 3) for d in DISTANCES},
                "largest standard error": round(max(v.std(ddof=1) / np.sqrt(len(v)) for v in values.values()), 3),
                "falls monotonically": all(means[d] > means[d + 1] for d in DISTANCES[:-1]),
                "1 less 5": round(means[1] - means[5], 3),
                "1 less 5, shuffled": round(float(np.mean([each[1] - each[5] for each in shuffles])), 3),
                "97.5 % of shuffles below": round(float(np.quantile([e[1] - e[5] for e in shuffles], 0.975)), 3),
            }
        )
    record(
        "interference",
        rows,
        title="Mean cosine of two architectures' gradients on shared operators, by operators that differ",
        seeds=SEEDS[: arguments.seeds],
        notes={"space": "6 layers x 6 operators, 8 channels, digits", "steps": STEPS, "pairs at each distance": PAIRS},
    )
    return 0


def pairs_of(seed: int) -> list[Interference]:
    """Train for a while and look at pairs of every distance."""
    data = split(digits.load(digits.Config()), validation=0.2, test=0.2)
    stages = tuple(Stage(operators=OPERATORS, widths=(8,), depths=(3,), stride=stride) for stride in (1, 2))
    space = build(Config(resolution=8, stem_width=8, stages=stages), in_channels=1, classes=10)
    torch.manual_seed(seed)
    supernet = space.supernet()
    a_step = len(data.train) // 64
    config = TrainingConfig(
        sampler="uniform",  # type: ignore[arg-type]  # a name stands for the plugin
        criterion="cross_entropy",  # type: ignore[arg-type]
        epochs=round(STEPS / a_step),
        shift=0,
        evaluate_every=1000,
        seed=seed,
    )
    Trainer(space, supernet, data, config, None).run()
    rng = np.random.default_rng(seed)
    pairs = [pair for d in DISTANCES for pair in pairs_at(space.genes, d, PAIRS, rng)]
    batch = data.validation.head(IMAGES)
    return interference(supernet, space, pairs, batch.images, batch.labels)


if __name__ == "__main__":
    sys.exit(main())
