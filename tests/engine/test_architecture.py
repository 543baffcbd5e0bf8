from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.engine.architecture import (
    Architecture,
    Gene,
    active,
    blocks,
    canonical,
    check,
    every_block,
    extreme,
    from_json,
    restrict,
    sample,
    size,
    to_architecture,
    to_json,
)
from tests.engine.toy_spaces import GATED, ToySpace, every, gene_sets, spaces

seeds = st.integers(0, 2**32 - 1)


def any_rows(genes: tuple[Gene, ...], seed: int) -> np.ndarray:
    """Rows with every gene at any option, on or off, allowed or not."""
    return np.random.default_rng(seed).integers(0, [len(gene.options) for gene in genes], (20, len(genes)))


@given(gene_sets(), seeds)
def test_canonical_rows_stay_as_they_are(genes: tuple[Gene, ...], seed: int) -> None:
    X = canonical(genes, any_rows(genes, seed))
    assert (canonical(genes, X) == X).all()


@given(gene_sets(), seeds)
def test_networks_that_differ_in_genes_that_are_off_are_equal_tuples(genes: tuple[Gene, ...], seed: int) -> None:
    X, other = any_rows(genes, seed), any_rows(genes, seed + 1)
    same_network = np.where(active(genes, X), X, other)
    assert (canonical(genes, X) == canonical(genes, same_network)).all()


@given(gene_sets())
def test_size_counts_every_architecture_once(genes: tuple[Gene, ...]) -> None:
    assert size(genes) == len(every(genes))


def test_size_of_a_gated_space_by_hand() -> None:
    # depth 1: 2 kernels; depth 2: 2 x 2; depth 3: 2 x 2 x (2 kernels with 2 dilations, 1 kernel without)
    assert size(GATED) == 2 + 4 + 4 * (2 * 2 + 1)


@given(gene_sets(), seeds)
def test_samples_are_architectures_of_the_space(genes: tuple[Gene, ...], seed: int) -> None:
    rows = {to_architecture(row) for row in sample(genes, 20, np.random.default_rng(seed))}
    assert rows <= every(genes)


@given(gene_sets(), st.data())
def test_a_restricted_space_is_a_part_of_the_whole(genes: tuple[Gene, ...], data: st.DataObject) -> None:
    mask = [
        data.draw(st.lists(st.booleans(), min_size=len(g.options), max_size=len(g.options)).filter(_keeps_one(g)))
        for g in genes
    ]
    narrowed = restrict(genes, mask)
    assert [g.options for g in narrowed] == [g.options for g in genes]
    assert every(narrowed) <= every(genes)


def _keeps_one(gene: Gene):  # type: ignore[no-untyped-def]  # a predicate for filter
    return lambda row: any(row[i] for i in gene.choices)


def test_a_mask_that_leaves_a_gene_without_options_is_an_error() -> None:
    with pytest.raises(ValueError, match="'depth'"):
        restrict(GATED[:1], [[False, False, False]])


def test_a_mask_of_the_wrong_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="'depth' has 3 options, its mask 2"):
        restrict(GATED[:1], [[True, True]])


@given(gene_sets(), st.data())
def test_json_brings_every_architecture_back(genes: tuple[Gene, ...], data: st.DataObject) -> None:
    architecture: Architecture = data.draw(st.sampled_from(sorted(every(genes))))
    assert from_json(genes, json.loads(json.dumps(to_json(genes, architecture)))) == architecture


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ({"depth": 1, "kernel1": 3, "width": 2}, "no gene is called 'width'"),
        ({"depth": 1, "kernel1": 4}, "'kernel1' has no option 4"),
        ({"depth": 2, "kernel1": 3}, "'kernel2' is on and has no value"),
        ({"depth": 1, "kernel1": 3, "kernel2": 3}, "'kernel2' is off"),
    ],
)
def test_json_of_no_architecture_says_why(written: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        from_json(GATED, written)


@given(gene_sets(), seeds)
def test_check_accepts_the_architectures_of_the_space_and_no_others(genes: tuple[Gene, ...], seed: int) -> None:
    known = every(genes)
    for row in any_rows(genes, seed):
        architecture = to_architecture(row)
        if architecture in known:
            assert check(genes, architecture) == architecture
        else:
            with pytest.raises(ValueError):  # noqa: PT011 which of the reasons is not this test's question
                check(genes, architecture)


@pytest.mark.parametrize("row", [(0, 0), (0, 0, 0, 0, 9), (0, 0, 0, 0, -1), (0, 0, 1, 0, 0)])
def test_check_refuses_what_is_no_architecture(row: Architecture) -> None:
    with pytest.raises(ValueError, match=r"has 5 genes|options 0 to|not canonical"):
        check(GATED, row)


def test_the_extremes_are_the_first_and_last_allowed_options() -> None:
    narrowed = restrict(GATED, [[False, True, True], [True, True], [True, False], [True, True, False], [True, True]])
    assert extreme(narrowed, largest=False) == (1, 0, 0, 0, 0)
    assert extreme(narrowed, largest=True) == (2, 1, 0, 1, 1)


@given(spaces())
def test_every_block_is_exactly_what_some_architecture_needs(space: ToySpace) -> None:
    needed = {block for architecture in every(space.genes) for block in blocks(space, architecture)}
    assert set(every_block(space)) == needed


@pytest.mark.parametrize("options", [(), (3, 3), (1, True)])
def test_a_gene_needs_different_options(options: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="'kernel'"):
        Gene("kernel", options)
