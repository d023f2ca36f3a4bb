"""How many trials a worker is given at once."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from search.packing import MOST_ON_CPU, MOST_ON_GPU, Packing
from tests.trainer.trainer_cases import MLP

DIGITS = Packing(trials=64, workers=2, on_gpu=False, rows=1257, input_shape=(1, 8, 8), outputs=10)


def test_worked_out_by_hand() -> None:
    assert DIGITS.most(left=64) == 8  # 16 of 64 in flight, over two workers
    assert DIGITS.most(left=6) == 3
    assert dataclasses.replace(DIGITS, trials=1000).most(left=1000) == MOST_ON_CPU
    assert dataclasses.replace(DIGITS, trials=1000, on_gpu=True).most(left=1000) == MOST_ON_GPU
    assert dataclasses.replace(DIGITS, trials=6).most(left=6) == 1
    assert dataclasses.replace(DIGITS, trials=50_000, workers=1000).most(left=50_000) == 6  # and as many wait


@given(
    trials=st.integers(1, 100_000),
    workers=st.integers(1, 2_000),
    on_gpu=st.booleans(),
    asked=st.floats(0, 1),
)
def test_at_most_a_quarter_of_a_study_is_in_flight(trials: int, workers: int, on_gpu: bool, asked: float) -> None:
    packing = dataclasses.replace(DIGITS, trials=trials, workers=workers, on_gpu=on_gpu)
    most = packing.most(left=trials - int(asked * trials))
    assert most >= 1
    assert most == 1 or most * workers * packing.packs_ahead <= trials / 4


def test_cost_grows_with_rows_epochs_and_weights() -> None:
    cost = DIGITS.cost(MLP, 10)
    assert DIGITS.cost(MLP, 20) == 2 * cost
    assert dataclasses.replace(DIGITS, rows=2 * DIGITS.rows).cost(MLP, 10) == 2 * cost
    assert DIGITS.cost(dataclasses.replace(MLP, neurons=(32, 24)), 10) > 1.5 * cost
    assert dataclasses.replace(DIGITS, on_gpu=True).budget > DIGITS.budget
