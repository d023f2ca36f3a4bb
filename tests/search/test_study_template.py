"""The study file that `neurosweep init` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.spec import StudySpec
from search.study_file import parse_study, template
from search.yaml_reader import read_yaml
from trainer.settings import Family


@pytest.mark.parametrize(
    ("data", "model", "name"),
    [(None, None, None), ("iris", None, None), ("/rows.csv", "mlp", "mine"), ("digits", "cnn", None)],
)
def test_it_is_valid_and_says_the_defaults(data: str | None, model: str | None, name: str | None) -> None:
    spec = parse_study(template(data, model, name))
    families = [family.value for family in spec.model]
    minimal = {"name": spec.name, "data": {"source": data or "digits"}, "model": families}
    assert spec.to_mapping() == StudySpec.from_mapping(minimal).to_mapping()


def test_it_shows_every_key_and_comments_out_what_has_no_default() -> None:
    text = template("digits", None, None)
    full = StudySpec.from_mapping({"name": "digits", "data": {"source": "digits"}, "model": ["mlp", "cnn"]})
    assert read_yaml(text, "study.yaml").value == full.to_mapping()
    comments = {line.strip().lstrip("# ").partition(":")[0] for line in text.splitlines() if "# " in line}
    assert {
        "target",
        "features",
        "group",
        "max_rows",
        "task",
        "metric",
        "human",
        "minutes",
        "stop_when",
        "champion",
        "start_from",
    } <= comments


LATER = ("stop_when: no_gain", "champion: simplest")


def test_the_commented_lines_are_right_too() -> None:
    text = template("digits", None, None)
    for line in ("task: classification", "metric: error", "human: 0.01", "max_rows: 10000", "minutes: 60", *LATER):
        assert text.count(f"# {line}\n") == 1
        text = text.replace(f"# {line}\n", f"{line}\n")
    spec = parse_study(text)
    assert (spec.task, spec.metric, spec.human) == ("classification", "error", 0.01)
    assert (spec.data.max_rows, spec.budget.minutes) == (10_000, 60)
    assert (spec.budget.stop_when, spec.champion) == ("no_gain", "simplest")


def test_images_get_both_families_and_tables_an_mlp(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    both, mlp = (Family.MLP, Family.CNN), (Family.MLP,)
    cases = {"digits": both, "x.npz": both, str(tmp_path / "cats"): both, "rows.csv": mlp, "iris": mlp, "hf:a/b": mlp}
    for data, families in cases.items():
        text = template(data, None, None)
        assert parse_study(text).model == families
        assert ("conv_layers" in text) == (families == both)


@pytest.mark.parametrize(
    ("data", "name"),
    [("data/Cats & Dogs.csv", "cats-dogs"), ("hf:ylecun/mnist", "mnist"), ("./", "study"), ("a: b #1.csv", "a-b-1")],
)
def test_the_name_comes_from_the_data_and_odd_paths_are_quoted(data: str, name: str) -> None:
    spec = parse_study(template(data, "mlp", None), "/study.yaml")
    assert spec.name == name
    assert spec.data.source == (data if data.startswith("hf:") else str(Path("/") / data))


def test_lines_fit_a_narrow_window() -> None:
    assert max(len(line) for line in template("digits", None, None).splitlines()) <= 90
