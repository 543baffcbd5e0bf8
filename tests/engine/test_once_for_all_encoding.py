"""Once-for-All's encoding of architectures, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.engine import architecture as arch
from hwnas.engine.spaces.mobilenet_v3 import Stage
from hwnas.engine.spaces.mobilenet_v3.once_for_all_encoding import from_encoding, to_encoding
from hwnas.engine.spaces.once_for_all import once_for_all_space
from tests.engine.spaces import mobilenet

SPACE = once_for_all_space()
KS = [3, 5, 7, 3] * 5
E = [6, 4, 3, 3] * 5
ENCODING = {"ks": KS, "e": E, "d": [2, 3, 4, 2, 3], "r": [160]}


def test_genes_are_what_the_encoding_says() -> None:
    values = arch.to_json(SPACE.genes, from_encoding(SPACE, ENCODING))
    assert values["resolution"] == 160
    assert [values[f"s{s}.depth"] for s in range(1, 7)] == [1, 2, 3, 4, 2, 3]  # the first stage is fixed
    assert [values[f"s4.b{b}.kernel"] for b in range(1, 5)] == [3, 5, 7, 3]
    assert [values[f"s4.b{b}.expansion"] for b in range(1, 5)] == [6, 4, 3, 3]
    assert "s2.b3.kernel" not in values


def test_every_encoding_of_a_network_is_one_architecture() -> None:
    other = {**ENCODING, "ks": [3, 5, 3, 7, *KS[4:]], "e": [6, 4, 6, 6, *E[4:]]}  # places that stage 2 does not use
    assert from_encoding(SPACE, other) == from_encoding(SPACE, ENCODING)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000))
def test_what_was_written_is_read_again(seed: int) -> None:
    architecture = arch.to_architecture(arch.sample(SPACE.genes, 1, np.random.default_rng(seed))[0])
    encoding = to_encoding(SPACE, architecture)
    assert [len(encoding[key]) for key in ("ks", "e", "d", "r")] == [20, 20, 5, 1]
    assert from_encoding(SPACE, encoding) == architecture


def test_it_has_as_many_subnets_as_its_authors_say() -> None:
    one = once_for_all_space(resolutions=[224])
    assert arch.size(one.genes) == (9**2 + 9**3 + 9**4) ** 5  # "more than 10^19"


def test_one_number_holds_for_every_place() -> None:
    largest = arch.extreme(SPACE.genes, largest=True)
    assert from_encoding(SPACE, {"ks": 7, "e": 6, "d": 4, "r": 224}) == largest


def test_a_single_resolution_need_not_be_said() -> None:
    one = once_for_all_space(resolutions=[224])
    assert to_encoding(one, from_encoding(one, {"ks": 7, "e": 6, "d": 4, "wid": None}))["r"] == [224]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ks": KS[:19]}, "ks has 19 values, this space has 20 places for a block"),
        ({"ks": [4, *KS[1:]]}, r"ks\[0\] is 4: choose from 3, 5, 7"),
        ({"e": ["6", *E[1:]]}, r"e\[0\] is '6': choose from 3, 4, 6"),
        ({"d": [2, 3, 4, 2]}, "d has 4 values, this space has 5 stages"),
        ({"d": [2, 3, 5, 2, 3]}, r"d\[2\] is 5: choose from 2, 3, 4"),
        ({"r": [161]}, "r is 161: choose from 128, 160, 192, 224"),
        ({"r": [128, 160]}, "r has 2 values"),
        ({"r": None}, "r is None"),
        ({"wid": 1.2}, "wid is 1.2"),
        ({"width": 1.2}, "no 'width'"),
    ],
)
def test_a_wrong_encoding_is_told(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_encoding(SPACE, {**ENCODING, **change})


@pytest.mark.parametrize("key", ["ks", "e", "d", "r"])
def test_a_missing_part_is_told(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} is missing"):
        from_encoding(SPACE, {name: value for name, value in ENCODING.items() if name != key})


def test_a_space_of_elastic_width_has_no_encoding() -> None:
    space = mobilenet()
    with pytest.raises(ValueError, match="stage 1 has the widths"):
        to_encoding(space, arch.extreme(space.genes, largest=True))


def test_a_first_stage_with_choices_is_written_too() -> None:
    stages = (Stage(widths=(8,), depths=(1, 2), kernels=(3, 5), expansions=(1, 2.5)),)
    space = mobilenet(stages=stages)
    architecture = arch.extreme(space.genes, largest=True)
    assert to_encoding(space, architecture) == {"ks": [5, 5], "e": [2.5, 2.5], "d": [2], "r": [12]}
    assert from_encoding(space, {"ks": 5, "e": 2.5, "d": 2, "r": 12}) == architecture


def test_options_that_a_restriction_bars_are_told() -> None:
    mask = [[i == 0 for i in range(len(gene.options))] for gene in SPACE.genes]
    with pytest.raises(ValueError, match="restricted to options"):
        from_encoding(SPACE.restrict(mask), ENCODING)
