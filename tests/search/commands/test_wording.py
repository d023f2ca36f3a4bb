from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.commands.words import age, duration, figure, in_short, plain

MLP = {
    "model": "mlp",
    "layers": 2,
    "neurons_1": 128,
    "neurons_2": 64,
    "activation": "relu",
    "learning_rate": 0.0021234,
    "optimizer": "adam",
    "dropout": 0.125,
    "batch_norm": True,
    "batch_size": 64,
}


def test_terminal_controls_become_escapes() -> None:
    assert plain("a\x1b[31mred\x07\x9b2J\u202eflip") == "a\\x1b[31mred\\x07\\x9b2J\\u202eflip"
    assert plain("two\nlines", keep="\n") == "two\nlines"
    assert plain("Blüte 花") == "Blüte 花"


@settings(deadline=None)
@given(st.text())
def test_plain_text_has_nothing_that_a_terminal_acts_on(text: str) -> None:
    assert not [character for character in plain(text) if ord(character) < 32 or 127 <= ord(character) < 160]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.2, "0 s"),
        (59.6, "1 min"),
        (41.2, "41 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_an_age_has_one_unit() -> None:
    now = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
    assert age(now - timedelta(minutes=5, seconds=20), now) == "5 min"
    assert age(now - timedelta(days=3, hours=4), now) == "3 d"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0123456, "0.0123"), (0.0, "0"), (1e-5, "1e-05"), (2953.7, "2954"), (float("inf"), "inf")],
)
def test_figures_are_short(value: float | None, text: str) -> None:
    assert figure(value) == text


def test_settings_in_short_name_the_layers_first() -> None:
    assert in_short(MLP) == "mlp 128-64, relu, adam 0.00212, dropout 0.125, batch norm, batch 64"


def test_layers_stand_in_their_order_even_past_nine() -> None:
    params = {"model": "mlp", **{f"neurons_{layer}": layer for layer in range(11, 0, -1)}}
    assert in_short(params).startswith("mlp 1-2-3-4-5-6-7-8-9-10-11,")


def test_convolutions_show_filters_size_stride_and_pool() -> None:
    convolutions = {
        "model": "cnn",
        "filters_1": 16,
        "filter_size_1": 3,
        "stride_1": 1,
        "pool_1": "max",
        "filters_2": 32,
        "filter_size_2": 5,
        "stride_2": 2,
        "pool_2": "none",
    }
    assert in_short({**MLP, **convolutions}).startswith("cnn 16@3x3 max, 32@5x5/2, dense 128-64, relu")
