"""Splits: disjoint, complete, stratified, whole groups, the same for one seed."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from neurosweep.errors import DataError
from trainer.data.dataset import DataRequest
from trainer.data.load import load
from trainer.data.splits import (
    allocate,
    quantiles,
    sample,
    split_by_column,
    split_by_fractions,
    split_groups,
    split_hash,
)

IRIS_HASH = "988dfa35266030d197959e535ebb41488f7c875234b5972c581bce79c623bf94"

class_sizes = st.lists(st.integers(3, 60), min_size=1, max_size=12)
seeds = st.integers(0, 2**32 - 1)
shares = st.tuples(*[st.integers(1, 20)] * 3).map(lambda parts: tuple(part / sum(parts) for part in parts))


def shuffled_strata(sizes: list[int]) -> np.ndarray:
    strata = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(len(strata)).permutation(strata)


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=30), draw=st.data())
def test_allocation_is_within_a_row_of_the_exact_shares_with_exact_sums(sizes: list[int], draw: st.DataObject) -> None:
    total = sum(sizes)
    first = draw.draw(st.integers(0, total))
    second = draw.draw(st.integers(0, total - first))
    totals = np.array([first, second, total - first - second])

    counts = allocate(np.array(sizes), totals)

    assert counts.sum(axis=0).tolist() == totals.tolist()
    assert counts.sum(axis=1).tolist() == sizes
    assert counts.min() >= 0
    if total:
        assert np.abs(counts - np.outer(sizes, totals) / total).max() <= 1


@settings(deadline=None)
@given(sizes=class_sizes, fractions=shares, seed=seeds)
def test_fractions_give_every_row_to_one_split_and_every_class_to_all_three(
    sizes: list[int], fractions: tuple[float, float, float], seed: int
) -> None:
    strata = shuffled_strata(sizes)

    dealt = split_by_fractions(strata, fractions, seed)

    assert set(dealt.tolist()) == {0, 1, 2}
    assert len(dealt) == len(strata)
    for stratum in range(len(sizes)):
        assert set(dealt[strata == stratum].tolist()) == {0, 1, 2}


@settings(deadline=None)
@given(sizes=st.lists(st.integers(14, 60), min_size=1, max_size=12), seed=seeds)
def test_each_class_is_within_a_row_of_its_share(sizes: list[int], seed: int) -> None:
    strata = shuffled_strata(sizes)

    dealt = split_by_fractions(strata, (0.7, 0.15, 0.15), seed)

    rows = len(strata)
    nearest = int(rows * 0.15 + 0.5)
    assert [int((dealt == part).sum()) for part in range(3)] == [rows - 2 * nearest, nearest, nearest]
    for stratum, size in enumerate(sizes):
        for part, total in enumerate((rows - 2 * nearest, nearest, nearest)):
            assert abs(((strata == stratum) & (dealt == part)).sum() - size * total / rows) <= 1


def test_another_seed_gives_another_split_and_the_same_seed_the_same() -> None:
    strata = shuffled_strata([40, 40])
    first, again, other = (split_by_fractions(strata, (0.7, 0.15, 0.15), seed) for seed in (1, 1, 2))

    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


@settings(deadline=None, max_examples=50)
@given(
    members=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 8)), min_size=3, max_size=40),
    fractions=shares,
    seed=seeds,
)
@example(members=[(0, 10)] * 3, fractions=(0.7, 0.15, 0.15), seed=0)
@example(members=[(0, 100), (0, 1), (0, 1)], fractions=(0.1, 0.1, 0.8), seed=0)
def test_groups_stay_whole_and_leave_no_split_empty(
    members: list[tuple[int, int]], fractions: tuple[float, float, float], seed: int
) -> None:
    groups = np.repeat(np.arange(len(members)), [size for _, size in members])
    strata = np.unique([stratum for stratum, _ in members], return_inverse=True)[1][groups]

    dealt = split_groups(strata, groups, fractions, seed)

    assert set(dealt.tolist()) == {0, 1, 2}
    for group in range(len(members)):
        assert len(set(dealt[groups == group].tolist())) == 1


def test_many_small_groups_come_close_to_the_shares_in_every_class() -> None:
    generator = np.random.default_rng(5)
    groups = generator.integers(0, 400, size=3000)
    groups = np.unique(groups, return_inverse=True)[1]
    strata = generator.choice(3, size=3000, p=[0.6, 0.3, 0.1])

    dealt = split_groups(strata, groups, (0.7, 0.15, 0.15), seed=3)

    for stratum in range(3):
        inside = dealt[strata == stratum]
        for part, fraction in enumerate((0.7, 0.15, 0.15)):
            assert np.mean(inside == part) == pytest.approx(fraction, abs=0.02)


@settings(deadline=None)
@given(sizes=class_sizes, share=st.floats(0.05, 0.95), seed=seeds)
def test_a_sample_keeps_each_classs_share(sizes: list[int], share: float, seed: int) -> None:
    strata = shuffled_strata(sizes)
    size = int(share * len(strata))
    assume(size)

    rows = sample(strata, size, seed)

    assert len(rows) == size
    assert rows.tolist() == sorted(set(rows.tolist()))
    drawn = Counter(strata[rows].tolist())
    for stratum, count in enumerate(sizes):
        assert abs(drawn[stratum] - count * size / len(strata)) <= 1


def test_quantiles_have_ten_rows_at_least_and_follow_the_target() -> None:
    values = np.random.default_rng(0).normal(size=95)

    strata = quantiles(values)

    assert sorted(set(Counter(strata.tolist()).values())) == [10, 11]
    assert len(set(strata.tolist())) == 9
    for stratum in range(8):
        assert values[strata == stratum].max() < values[strata == stratum + 1].min()
    assert set(quantiles(values[:12]).tolist()) == {0}


def test_a_regression_has_every_quantile_in_each_split() -> None:
    dataset = load(DataRequest(source="diabetes"))
    targets = np.empty(442)
    for split in (dataset.train, dataset.validation, dataset.test):
        targets[split.rows] = split.targets * dataset.preprocessing.target_std + dataset.preprocessing.target_mean
    tenth = np.searchsorted(np.quantile(targets, np.linspace(0.1, 0.9, 9)), targets)

    for split, share in ((dataset.train, 0.7), (dataset.validation, 0.15), (dataset.test, 0.15)):
        for place in range(10):
            # Ties and the quantiles' ends may move a row or two.
            assert abs((tenth[split.rows] == place).sum() - share * (tenth == place).sum()) <= 3


def test_the_hash_is_that_of_the_row_ids_and_never_changes() -> None:
    dataset = load(DataRequest(source="iris"))

    told = b""
    for name, split in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test)):
        rows = sorted(split.rows.tolist())
        told += name.encode() + b"\0" + struct.pack(f"<{len(rows)}q", *rows)
    assert dataset.split_hash == hashlib.sha256(told).hexdigest() == IRIS_HASH


def test_the_hash_tells_which_split_a_row_is_in() -> None:
    one, two, three = np.array([1]), np.array([2]), np.array([3])

    assert split_hash((one, two, three)) != split_hash((one, three, two))
    assert split_hash((np.array([1, 2]), two, three)) != split_hash((one, np.array([2, 2]), three))


def test_rows_are_ascending_and_each_is_in_one_split() -> None:
    dataset = load(DataRequest(source="digits", seed=7))

    rows = [split.rows.tolist() for split in (dataset.train, dataset.validation, dataset.test)]
    assert all(part == sorted(part) for part in rows)
    assert sorted(chain(*rows)) == list(range(1797))
    assert [len(part) for part in rows] == [1257, 270, 270]


def test_a_column_says_the_splits() -> None:
    assert split_by_column(["test", "train", "validation", "train"], "fold", "t.csv").tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["train", "val", "test"], ["row 2 says 'val'", "did you mean 'validation'?"]),
        (["train", "validation", "tset"], ["row 3 says 'tset'", "did you mean 'test'?"]),
        (["train", None, "test"], ["row 2 has none"]),
        (["train", "train", "test"], ["none to validation"]),
    ],
)
def test_a_column_that_says_something_else_is_an_error(values: list[str | None], said: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        split_by_column(values, "fold", "t.csv")

    assert all(part in str(caught.value) for part in [*said, "'fold'", "t.csv"])
