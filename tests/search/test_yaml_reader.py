"""Reading YAML: nothing but plain values comes out, in bounded time, and each mistake has its line."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from neurosweep.errors import StudyFileError
from search.study_file import parse_study
from search.yaml_reader import read_yaml


def refused(text: str) -> StudyFileError:
    with pytest.raises(StudyFileError) as caught:
        read_yaml(text, "study.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 0.0001),
        ("1_000", 1000),
        ("0x10", 16),
        ("0o17", 15),
        ("-3", -3),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("true", True),
        ("yes", "yes"),
        ("off", "off"),
        ("none", "none"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("2024-01-31", "2024-01-31"),
        ("12:30", "12:30"),
        ("[1, [a]]", [1, ["a"]]),
        ("{b: 1, a: 2}", {"b": 1, "a": 2}),
        ("&x 3", 3),
    ],
)
def test_plain_values(written: str, value: object) -> None:
    read = read_yaml(f"key: {written}", "study.yaml").value["key"]
    assert read == value
    assert type(read) is type(value)


def test_the_line_of_every_key_and_item() -> None:
    text = "# comment\na: 1\n\nb:\n  c:\n    - x\n    -\n      y\n  d: {e: 1,\n    f: 2}\n"
    assert read_yaml(text, "study.yaml").positions.lines == {
        ("a",): 2,
        ("b",): 4,
        ("b", "c"): 5,
        ("b", "c", 0): 6,
        ("b", "c", 1): 8,
        ("b", "d"): 9,
        ("b", "d", "e"): 9,
        ("b", "d", "f"): 10,
    }


def test_an_alias_stands_for_its_anchor() -> None:
    assert read_yaml("a: &x {b: 1}\nc: *x", "study.yaml").value == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "study.yaml:3", "a flow sequence that begins in line 2"),
        ("a:\n\tb: 1", "study.yaml:2", "indent with spaces, not tabs"),
        ("a: 1\nb: c: d", "study.yaml:2", "quote text that holds ': '"),
        ("a: 1\nb:1\nc: 2\n", "study.yaml:2", "with a space after the colon"),
        ("a: 1\n b: 2", "study.yaml:2", "check the indentation"),
        ("a: 'x", "study.yaml:1", "unexpected end of stream"),
        ("a: *x", "study.yaml:1", "undefined alias"),
        ("a: 1\n---\na: 2", "study.yaml:2", "one document"),
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3", "study.yaml:5, b.c", "c is there twice, first in line 3"),
        ("a: {b: 1, b: 2}", "study.yaml:1, a.b", "b is there twice"),
        ("? [a, b]\n: 1", "study.yaml:1", "a key must be one word"),
        ("a: 1\nb: \x07", "study.yaml:2", "control character #x0007"),
        ('a: "\\0"', "study.yaml:1, a", "NUL"),
        ('a:\n  - "\\ud800"', "study.yaml:2, a", "surrogate"),
        ('a: "\\U00ffffff"', "study.yaml", "not valid YAML"),
        ("%YAML 9.9\n---\na: 1", "study.yaml:1", "not valid YAML"),
        ("a: !!int '3'", "study.yaml:1", "write the plain value"),
        ("a: !mine 3", "study.yaml:1", "the tag !mine has no place"),
    ],
)
def test_mistakes_have_their_line(text: str, where: str, words: str) -> None:
    error = refused(text)
    assert error.where == where
    assert words in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    "tagged",
    [
        '!!python/object/apply:os.system ["touch {file}"]',
        '!!python/object/new:os.system ["touch {file}"]',
        "!!python/name:os.system",
        '!<tag:yaml.org,2002:python/object/apply:os.system> ["touch {file}"]',
    ],
)
def test_a_tag_makes_nothing_happen(tmp_path: Path, tagged: str) -> None:
    canary = tmp_path / "canary"
    text = f"name: a\ndata: {{source: digits}}\nseed: {tagged.replace('{file}', str(canary))}\n"
    with pytest.raises(StudyFileError, match="tag") as caught:
        parse_study(text)
    assert caught.value.where == "study.yaml:3"
    assert not canary.exists()


def bomb() -> str:
    """Ten levels of nine aliases each: 9 ** 10 values if followed."""
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]" for level in range(1, 10)]
    return "\n".join(levels)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(bomb(), "at most 10,000 values", id="aliases of aliases"),
        pytest.param("a: &a [*a]", "20 levels deep", id="an alias inside its anchor"),
        pytest.param("[" * 100_000, "20 levels deep", id="lists in lists"),
        pytest.param("{a: " * 100_000, "20 levels deep", id="mappings in mappings"),
        pytest.param("- " * 100_000, "20 levels deep", id="items in items"),
        pytest.param(f"a: [{'1, ' * 300_000}]", "at most 10,000 values", id="a long list"),
        pytest.param("#" * 1_000_001, "at most 1,000,000 characters", id="a long text"),
    ],
)
def test_bombs_are_refused(text: str, words: str) -> None:
    """Followed to their ends, they would take all memory or hours."""
    assert words in refused(text).message


def test_an_anchor_used_twice_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_yaml("a: &x 1\nb: &x 2\nc: *x", "study.yaml").value["c"] == 2
