"""Whatever is valid survives the way to JSON and YAML and back; whatever is not ends as one clear error."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from neurosweep.errors import StudyFileError
from search.dimensions import RANGE_KEYS
from search.spec import (
    METRICS,
    BudgetSpec,
    DataSpec,
    PrunerKind,
    SamplerKind,
    SearchSpec,
    SpaceSpec,
    SplitSpec,
    StudySpec,
    WorkersSpec,
)
from search.study_file import parse_study
from search.yaml_reader import read_yaml
from search.yaml_writer import yaml_text
from trainer.data.dataset import Task
from trainer.settings import Activation, OptimizerKind, Padding, Pool, Schedule

NO_CONTROL = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
WORDS = st.text(NO_CONTROL, min_size=1, max_size=12).filter(str.strip)


def whole(low: int, high: int, step: int = 1) -> st.SearchStrategy[Any]:
    """A value, a list or a range of whole numbers that are `low` plus a number of steps."""
    values = st.integers(0, (high - low) // step).map(lambda count: low + step * count)
    ends = st.tuples(values, values).map(sorted)
    return st.one_of(
        values,
        st.lists(values, min_size=1, max_size=4, unique=True),
        ends.map(lambda pair: {"low": pair[0], "high": pair[1], "step": step}),
        *([ends.map(lambda pair: {"low": pair[0], "high": pair[1], "log": True})] if step == 1 else []),
    )


def real(low: float, high: float) -> st.SearchStrategy[Any]:
    values = st.floats(low, high)
    ends = st.tuples(values, values).map(sorted)
    ranges = ends.map(lambda pair: {"low": pair[0], "high": pair[1], "log": pair[0] > 0})
    return st.one_of(values, st.lists(values, min_size=1, max_size=4, unique=True), ranges)


def names(kind: Any) -> st.SearchStrategy[Any]:
    values = st.sampled_from([member.value for member in kind])
    return st.one_of(values, st.lists(values, min_size=1, unique=True))


SPACES = st.fixed_dictionaries(
    {},
    optional={
        "layers": whole(1, 100),
        "neurons": whole(1, 100_000),
        "activation": names(Activation),
        "learning_rate": real(1e-12, 10.0),
        "optimizer": names(OptimizerKind),
        "momentum": real(0.0, 0.999),
        "weight_decay": real(0.0, 1.0),
        "dropout": real(0.0, 0.999),
        "batch_norm": st.one_of(st.booleans(), st.just([True, False])),
        "batch_size": whole(1, 1_000_000),
        "schedule": names(Schedule),
        "conv_layers": whole(1, 100),
        "filters": whole(1, 100_000),
        "filter_size": whole(1, 11, step=2),
        "stride": whole(1, 9),
        "padding": names(Padding),
        "pool": names(Pool),
    },
)

SPLITS = st.one_of(
    WORDS.map(lambda column: {"column": column + "~split"}),
    st.tuples(st.integers(1, 50), st.integers(1, 49)).map(
        lambda pair: {"train": pair[0] / 100, "validation": pair[1] / 100, "test": 1 - (pair[0] + pair[1]) / 100}
    ),
)

DATA = st.fixed_dictionaries(
    {"source": st.sampled_from(["digits", "iris", "hf:a/b", "/rows.csv", "/a: b #c.npz"])},
    optional={
        "target": WORDS.map(lambda column: column + "~target"),
        "features": st.lists(WORDS, min_size=1, max_size=4, unique=True),
        "group": WORDS.map(lambda column: column + "~group"),
        "split": SPLITS,
        "max_rows": st.integers(3, 10**9),
    },
)


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    task = draw(st.sampled_from(Task))
    named = {"task": st.just(task.value), "metric": st.sampled_from([metric.value for metric in METRICS[task]])}
    tasks = draw(st.fixed_dictionaries({key: value for key, value in named.items() if draw(st.booleans())}))
    study = draw(
        st.fixed_dictionaries(
            {"name": st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True), "data": DATA},
            optional={
                "seed": st.integers(0, 2**32 - 1),
                "human": st.floats(0, 1),
                "model": st.sampled_from(["cnn", ["mlp", "cnn"], ["cnn"], ["cnn", "mlp"]]),
                "search": st.fixed_dictionaries(
                    {},
                    optional={
                        "sampler": st.sampled_from([kind.value for kind in SamplerKind]),
                        "pruner": st.sampled_from([kind.value for kind in PrunerKind]),
                        "audit": st.one_of(st.just("auto"), st.floats(0, 1)),
                    },
                ),
                "budget": st.fixed_dictionaries(
                    {"trials": st.integers(1, 1_000_000), "epochs": st.integers(1, 1_000_000)},
                    optional={
                        "minutes": st.floats(1e-3, 1e6),
                        "target": st.floats(0, 1),
                        "stop_when": st.sampled_from([None, "no_gain"]),
                    },
                ),
                "champion": st.sampled_from([None, "best", "simplest"]),
                "workers": st.fixed_dictionaries(
                    {},
                    optional={
                        "count": st.one_of(st.just("auto"), st.integers(1, 10_000)),
                        "cpus": st.floats(0.01, 64),
                        "gpus": st.one_of(st.just("auto"), st.floats(0, 1), st.integers(0, 8)),
                    },
                ),
            },
        )
    )
    if "model" in study:
        study["space"] = draw(SPACES)
    return {**study, **tasks}


@given(studies())
@example({"name": "a", "data": {"source": "digits", "features": [":a", "a:", "- a", "#", "é", "?", "a, b", "]"]}})
@example(
    {"name": "1e5", "data": {"source": "hf:a/b", "split": {"column": ":a"}, "target": "true", "group": "a\n b\x85c"}}
)
@settings(max_examples=150, deadline=None)
def test_a_study_survives_json_and_yaml(study: dict[str, Any]) -> None:
    spec = StudySpec.from_mapping(study)
    mapping = spec.to_mapping()
    assert StudySpec.from_mapping(json.loads(json.dumps(mapping, allow_nan=False))) == spec
    assert read_yaml(spec.to_yaml(), "study.yaml").value == mapping
    parsed = parse_study(yaml_text(study))
    assert parsed == (spec.resolved(spec.task) if spec.task else spec)


SECTIONS = (StudySpec, DataSpec, SplitSpec, SpaceSpec, SearchSpec, BudgetSpec, WorkersSpec)
KEYS = st.sampled_from([*(key for section in SECTIONS for key in section.model_fields), *RANGE_KEYS])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["digits", "adam", "auto", "mlp", "cnn", "error", "mse", "~x", "hf:", "a/b"]),
    st.text(max_size=6),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=20,
)


def reads_or_explains(text: str) -> None:
    try:
        parse_study(text)
    except StudyFileError as error:
        assert 1 <= len(error.message.splitlines()) <= 2
        assert (error.where or "").startswith("study.yaml")


@given(st.dictionaries(KEYS, JUNK, max_size=8))
@settings(max_examples=300, deadline=None)
def test_junk_under_real_keys_is_explained(junk: dict[str, Any]) -> None:
    reads_or_explains(json.dumps({"name": "a", "data": {"source": "digits"}, **junk}))


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_explained(text: str) -> None:
    reads_or_explains(text)


@given(st.text(st.sampled_from(list("ab:-,?&*!|>%@`'\"#{}[]\\/0x1e.~<= \t\n")), max_size=40))
@settings(max_examples=500, deadline=None)
def test_text_of_yamls_own_signs_is_explained(text: str) -> None:
    reads_or_explains("name: a\ndata: {source: digits}\n" + text)
    reads_or_explains(text)
