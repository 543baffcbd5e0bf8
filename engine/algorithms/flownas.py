"""The search under a limit on resources of FlowNAS: ten of fifty breed, a tenth of a mutant's genes is drawn anew."""

from __future__ import annotations

from functools import partial

from hwnas.engine.algorithms._best_parents import BestParents, Constants

# Lin et al., FlowNAS, IJCV 2023: of 50 rows a generation 25 mutants and 25 crossings of the 10 best. Its score adds a
# distance to a teacher's features: give such a sum as the first objective. Those of Single Path One-Shot (Guo et al.,
# ECCV 2020) are the same.
algorithm = partial(BestParents, Constants(parents=0.2, resampled=0.1))
