"""One network picked out of a space."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosweep.errors import BadInputError
from search.chosen import choose, middle
from search.dimensions import Choice, Range
from search.spec import StudySpec

DIGITS = (1, 8, 8)


def study(model: Any = "cnn", **space: Any) -> StudySpec:
    return StudySpec.from_mapping({"name": "s", "data": {"source": "digits"}, "model": model, "space": space})


@pytest.mark.parametrize(
    ("dimension", "value"),
    [
        (Range(low=1, high=4), 2),
        (Range(low=16, high=256, log=True), 64),
        (Range(low=3, high=9, step=2), 5),
        (Range(low=0.0, high=0.5), 0.25),
        (Choice(values=(128, 32, 64)), 64),
        (Choice(values=("none", "max", "avg")), "none"),
        (Choice(values=(True, False)), True),
    ],
)
def test_the_middle_of_numbers_and_the_first_of_words_is_taken(dimension: Choice | Range, value: Any) -> None:
    assert middle(dimension) == value
    assert type(middle(dimension)) is type(value)


@given(st.integers(1, 1000), st.integers(1, 1000), st.booleans())
def test_the_middle_of_a_range_lies_in_it(low: int, more: int, log: bool) -> None:
    assert low <= middle(Range(low=low, high=low + more, log=log)) <= low + more  # type: ignore[operator]


def test_fixed_values_hold_and_what_is_open_is_said_with_its_choices() -> None:
    chosen = choose(study(conv_layers=1, filters=16, layers=1, filter_size=[3, 5]), DIGITS)
    layers = chosen.proposal.settings.convolutions
    assert [(layer.filters, layer.filter_size) for layer in layers] == [(16, 3)]
    assert chosen.taken["filter_size_1"] == (3, Choice(values=(3, 5)))
    assert chosen.taken["neurons_1"] == (64, Range(low=16, high=256, log=True))
    assert "filters_1" not in chosen.taken and "conv_layers" not in chosen.taken


def test_what_is_set_goes_before_the_file_for_all_layers_or_for_one() -> None:
    spec = study(conv_layers=3, filters=16, layers=1, filter_size=3)
    chosen = choose(
        spec, (1, 28, 28), ["filters_2=99", "filter_size = 5", "layers=2", "neurons_2=7", "batch_norm=false"]
    )
    settings = chosen.proposal.settings
    assert [layer.filters for layer in settings.convolutions] == [16, 99, 16]
    assert [layer.filter_size for layer in settings.convolutions] == [5, 5, 5]
    assert settings.neurons == (64, 7) and settings.batch_norm is False
    assert not {"filters_2", "filters_1", "neurons_2", "batch_norm"} & set(chosen.taken)


def test_a_trials_settings_hold_where_nothing_is_set() -> None:
    trial: dict[str, Any] = {
        "model": "cnn",
        "conv_layers": 2,
        "filters_1": 9,
        "filters_2": 10,
        "layers": 1,
        "neurons_1": 21,
    }
    chosen = choose(study(["mlp", "cnn"]), DIGITS, ["filters_1=30"], trial)
    assert [layer.filters for layer in chosen.proposal.settings.convolutions] == [30, 10]
    assert chosen.proposal.settings.neurons == (21,)


def test_a_convolutions_setting_chooses_the_cnn() -> None:
    assert choose(study(["mlp", "cnn"]), DIGITS).proposal.settings.family == "mlp"
    assert choose(study(["mlp", "cnn"]), DIGITS, ["filters=4"]).proposal.settings.family == "cnn"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("filters", "must be KEY=VALUE, such as filters=16"),
        ("filers=3", "there is no setting 'filers'; did you mean 'filters'?"),
        ("layers_2=3", "there is no setting 'layers_2'"),
        ("filters=many", "filters must be a whole number from 1 to 100,000, but is 'many'"),
        ("filters_1=0", "filters must be a whole number"),
        ("filters=[3, 4]", "must be one value"),
        ("pool={a: 1}", "must be one value|a range"),
        ("model=rnn", "model must be mlp | cnn, but is 'rnn'"),
        ("filter_size=4", "must be odd where padding is same"),
        ("neurons_9=3", "the network has no such layer: set layers as well"),
        ("pool=!!python/none x", "tag"),
    ],
)
def test_what_can_not_be_set_is_refused_with_its_reason(text: str, said: str) -> None:
    with pytest.raises(BadInputError) as caught:
        choose(study(), DIGITS, [text])
    assert any(each in str(caught.value) for each in [said, *said.split("|")])
    assert str(caught.value).startswith("--set")
