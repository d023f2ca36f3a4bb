"""How many workers fit, and on what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosweep.errors import BadInputError
from search.placement import Node, fit_workers


def fit(count: int | str, cpus: float, gpus: float | str, *have: tuple[float, float]) -> tuple[int, float]:
    """The number of workers and each one's share of a GPU, on machines of so many CPUs and GPUs."""
    shape = fit_workers(count, cpus, gpus, [Node(cpus=each[0], gpus=each[1]) for each in have])
    assert shape.cpus == cpus
    return shape.count, shape.gpus


@pytest.mark.parametrize(
    ("count", "cpus", "gpus", "have", "fitting"),
    [
        # Without a GPU: as many as the CPUs allow, shares of one included.
        ("auto", 1.0, "auto", (2, 0), (2, 0.0)),
        ("auto", 0.5, "auto", (2, 0), (4, 0.0)),
        ("auto", 0.1, "auto", (2, 0), (20, 0.0)),
        ("auto", 1.5, "auto", (4, 0), (2, 0.0)),
        ("auto", 3.0, 0.0, (8, 2), (2, 0.0)),
        (1, 1.0, "auto", (2, 0), (1, 0.0)),
        (4, 0.5, "auto", (2, 0), (4, 0.0)),
        # A quarter lets four share one GPU.
        ("auto", 1.0, 0.25, (16, 1), (4, 0.25)),
        ("auto", 1.0, 0.25, (16, 2), (8, 0.25)),
        ("auto", 1.0, 0.25, (3, 1), (3, 0.25)),
        (4, 1.0, 0.25, (16, 1), (4, 0.25)),
        # auto of a GPU: at most four to each, in even shares.
        ("auto", 1.0, "auto", (16, 1), (4, 0.25)),
        ("auto", 1.0, "auto", (64, 8), (32, 0.25)),
        ("auto", 1.0, "auto", (2, 1), (2, 0.5)),
        ("auto", 1.0, "auto", (2, 4), (2, 1.0)),
        (8, 1.0, "auto", (16, 1), (8, 0.125)),
        (1, 1.0, "auto", (16, 1), (1, 1.0)),
        # Three on two GPUs: two of them share one, as no worker can have the rests of two.
        ("auto", 1.0, "auto", (3, 2), (3, 0.5)),
        (3, 1.0, "auto", (16, 2), (3, 0.5)),
        (5, 1.0, "auto", (16, 2), (5, 0.3333)),
        ("auto", 1.0, 0.4, (16, 2), (4, 0.4)),
        ("auto", 1.0, 0.6, (16, 2), (2, 0.6)),
        # Several GPUs each.
        ("auto", 1.0, 2.0, (16, 8), (4, 2.0)),
        ("auto", 1.0, 1.0, (16, 8), (8, 1.0)),
    ],
)
def test_workers_that_fit(
    count: int | str, cpus: float, gpus: float | str, have: tuple[float, float], fitting: tuple[int, float]
) -> None:
    assert fit(count, cpus, gpus, have) == fitting


@pytest.mark.parametrize(
    ("count", "cpus", "gpus", "have", "key", "words"),
    [
        ("auto", 4.0, "auto", (2, 0), "workers.cpus", "needs 4 CPUs, and no machine here has more than 2"),
        (1, 2.5, "auto", (2, 0), "workers.cpus", "needs 2.5 CPUs"),
        ("auto", 1.0, 0.25, (2, 0), "workers.gpus", "needs 0.25 GPUs, and no machine here has more than 0"),
        (1, 1.0, 2.0, (2, 1), "workers.gpus", "needs 2 GPUs, and no machine here has more than 1"),
        (3, 1.0, "auto", (2, 0), "workers.count", "3 workers of 1 CPUs and 0 GPUs do not fit on 2 CPUs"),
        (5, 1.0, 0.25, (16, 1), "workers.count", "5 workers of 1 CPUs and 0.25 GPUs do not fit on 16 CPUs and 1 GPUs"),
        (3, 1.0, 0.6, (16, 2), "workers.count", "3 workers of 1 CPUs and 0.6 GPUs do not fit"),
        (17, 1.0, "auto", (16, 1), "workers.count", "17 workers"),
    ],
)
def test_workers_that_do_not_fit_are_refused_with_the_key_to_change(
    count: int | str, cpus: float, gpus: float | str, have: tuple[float, float], key: str, words: str
) -> None:
    with pytest.raises(BadInputError, match=words) as refused:
        fit(count, cpus, gpus, have)
    assert refused.value.where == key


@given(
    count=st.one_of(st.just("auto"), st.integers(1, 40)),
    cpus=st.sampled_from([0.1, 0.25, 0.3, 0.5, 1.0, 1.5, 2.0, 7.0]),
    gpus=st.one_of(st.just("auto"), st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.4, 0.5, 0.6, 1.0, 2.0])),
    have=st.tuples(st.integers(1, 64), st.integers(0, 8)),
)
def test_every_worker_finds_its_place(
    count: int | str, cpus: float, gpus: float | str, have: tuple[float, float]
) -> None:
    """Placed one by one, as Ray does: CPUs from all there are, a share from one GPU, several GPUs as whole ones."""
    try:
        workers, share = fit(count, cpus, gpus, have)
    except BadInputError:
        assert count != "auto" or cpus > have[0] or float(gpus) > have[1]
        return
    assert workers == count or count == "auto"
    assert workers >= 1
    assert workers * cpus <= have[0] + 1e-6
    free = [1.0] * int(have[1])
    for _ in range(workers if share else 0):
        whole = max(1, int(share))
        room = [gpu for gpu, rest in enumerate(free) if rest >= min(1.0, share) - 1e-9][:whole]
        assert len(room) == whole, (workers, share)
        for gpu in room:
            free[gpu] -= min(1.0, share)


@pytest.mark.parametrize(
    ("count", "cpus", "gpus", "have", "fitting"),
    [
        # No worker straddles two machines.
        ("auto", 3.0, "auto", [(4, 0), (4, 0), (4, 0)], (3, 0.0)),
        ("auto", 1.0, "auto", [(2, 0), (3, 0)], (5, 0.0)),
        # The machine with the GPU has CPUs for two; the one without has no GPU to give.
        ("auto", 1.0, "auto", [(2, 1), (16, 0)], (2, 0.5)),
        # A GPU that no worker can reach is no reason to start none.
        ("auto", 4.0, "auto", [(2, 1), (16, 0)], (4, 0.0)),
        (6, 1.0, "auto", [(4, 1), (4, 1)], (6, 0.3333)),
    ],
)
def test_workers_that_fit_on_several_machines(
    count: int | str, cpus: float, gpus: float | str, have: list[tuple[float, float]], fitting: tuple[int, float]
) -> None:
    assert fit(count, cpus, gpus, *have) == fitting


def test_workers_that_would_straddle_machines_are_refused() -> None:
    with pytest.raises(BadInputError, match="4 workers of 3 CPUs and 0 GPUs do not fit on 12 CPUs and 0 GPUs of 3"):
        fit(4, 3.0, "auto", (4, 0), (4, 0), (4, 0))
