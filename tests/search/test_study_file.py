"""The study file: defaults, sources, what it says of each mistake, and how it fits its data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from neurosweep.errors import StudyFileError
from search.dimensions import Choice, Fixed, Range
from search.spec import Champion, PrunerKind, SamplerKind, StopWhen, StudySpec, data_request
from search.study_file import check_against_data, parse_study, read_study
from trainer.data.dataset import Dataset, Preprocessing, Split, Task
from trainer.settings import Family
from trainer.work import Metric

MINIMAL = "name: digits\ndata: {source: digits}\n"

FULL = """\
name: digits
seed: 7
data:
  source: digits
  target: label
  features: [a, b]
  group: patient
  split: {train: 0.7, validation: 0.15, test: 0.15}
  max_rows: 10000
task: classification
metric: balanced_error
human: 0.01
model: mlp
space:
  layers: {low: 1, high: 4}
  neurons: {low: 16, high: 256, log: true}
  activation: [relu, tanh, gelu, silu, leaky_relu, elu, sigmoid]
  learning_rate: {low: 0.0001, high: 0.3, log: true}
  optimizer: [adam, adamw, sgd]
  momentum: 0.9
  weight_decay: {low: 0.000001, high: 0.01, log: true}
  dropout: {low: 0.0, high: 0.5}
  batch_norm: [true, false]
  batch_size: [32, 64, 128]
  schedule: [constant, cosine]
  conv_layers: {low: 1, high: 4}
  filters: {low: 8, high: 64, log: true}
  filter_size: [3, 5]
  stride: [1, 2]
  padding: [same, valid]
  pool: [none, max, avg]
search:
  sampler: tpe
  pruner: asha
  audit: auto
budget:
  trials: 100
  epochs: 30
  minutes: 60
  target: 0.02
  stop_when: no_gain
champion: simplest
workers:
  count: auto
  cpus: 1
  gpus: auto
"""
"""Every key of the study file, the space at its defaults."""


def fault(text: str) -> StudyFileError:
    with pytest.raises(StudyFileError) as caught:
        parse_study(dedent(text))
    return caught.value


class TestDefaults:
    def test_a_name_and_a_source_are_enough(self) -> None:
        spec = parse_study(MINIMAL)
        assert (spec.name, spec.seed, spec.task, spec.metric, spec.human) == ("digits", 0, None, None, None)
        assert spec.model == (Family.MLP,)
        assert spec.data.split.fractions == (0.7, 0.15, 0.15)
        assert (spec.search.sampler, spec.search.pruner) == (SamplerKind.TPE, PrunerKind.ASHA)
        assert (spec.search.audit, spec.budget.stop_when, spec.champion) == ("auto", None, None)
        assert (spec.budget.trials, spec.budget.epochs, spec.budget.minutes, spec.budget.target) == (
            100,
            30,
            None,
            None,
        )
        assert (spec.workers.count, spec.workers.cpus, spec.workers.gpus) == ("auto", 1.0, "auto")

    def test_the_space_left_out_is_the_space_written_out(self) -> None:
        assert parse_study(MINIMAL).space == parse_study(FULL).space
        space = parse_study(MINIMAL).space
        assert space.neurons == Range(low=16, high=256, log=True)
        assert space.learning_rate == Range(low=1e-4, high=0.3, log=True)
        assert space.momentum == Fixed(value=0.9)
        assert space.pool == Choice(values=("none", "max", "avg"))

    def test_every_key_arrives(self) -> None:
        spec = parse_study(FULL)
        assert (spec.seed, spec.metric, spec.human) == (7, Metric.BALANCED_ERROR, 0.01)
        assert (spec.data.target, spec.data.features, spec.data.group) == ("label", ("a", "b"), "patient")
        assert (spec.data.max_rows, spec.budget.minutes, spec.budget.target) == (10_000, 60.0, 0.02)
        assert (spec.search.audit, spec.budget.stop_when) == ("auto", StopWhen.NO_GAIN)
        assert spec.champion is Champion.SIMPLEST

    def test_the_mapping_has_the_files_keys_in_the_files_order(self) -> None:
        mapping = parse_study(FULL).to_mapping()
        keys = [line.strip().partition(":")[0] for line in FULL.splitlines()]
        found = []
        for key, value in mapping.items():
            found += [key, *value] if isinstance(value, dict) else [key]
        assert found == keys

    @pytest.mark.parametrize("text", [MINIMAL, FULL, FULL.replace("model: mlp", "model: [cnn, mlp]")])
    def test_json_and_yaml_say_the_same_study(self, text: str) -> None:
        spec = parse_study(text)
        assert StudySpec.from_mapping(json.loads(json.dumps(spec.to_mapping()))) == spec
        assert parse_study(spec.to_yaml()) == spec

    def test_yaml_is_written_as_people_write_it(self) -> None:
        lines = parse_study(FULL).to_yaml().splitlines()
        for line in FULL.splitlines():
            if not line.endswith(("cpus: 1", "minutes: 60")):  # numbers with a fraction elsewhere
                assert line in lines

    def test_a_section_with_every_line_commented_out_has_its_defaults(self) -> None:
        assert parse_study(MINIMAL + "space:\n  # layers: 3\nbudget:\n") == parse_study(MINIMAL)

    def test_a_study_cannot_be_changed(self) -> None:
        with pytest.raises(Exception, match="frozen"):
            parse_study(MINIMAL).seed = 3  # type: ignore[misc]  # that it is refused is what is tested


class TestDimensions:
    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("layers: 2", Fixed(value=2)),
            ("layers: [2]", Fixed(value=2)),
            ("layers: {low: 2, high: 2}", Fixed(value=2)),
            ("layers: 1e1", Fixed(value=10)),
            ("layers: [3, 1]", Choice(values=(3, 1))),
            ("layers: {low: 1, high: 7, step: 3}", Range(low=1, high=7, step=3)),
            ("dropout: 0", Fixed(value=0.0)),
            ("dropout: {low: 0, high: 0.3, step: 0.1}", Range(low=0.0, high=0.3, step=0.1)),
            ("learning_rate: {low: 1e-4, high: 1e-1, log: true}", Range(low=0.0001, high=0.1, log=True)),
            ("learning_rate: {low: 1e-4, high: 1e-1, log: false}", Range(low=0.0001, high=0.1)),
            ("batch_norm: false", Fixed(value=False)),
            ("optimizer: sgd", Fixed(value="sgd")),
        ],
    )
    def test_a_value_is_fixed_a_list_is_a_choice_a_mapping_is_a_range(self, written: str, read: object) -> None:
        spec = parse_study(f"{MINIMAL}space: {{{written}}}")
        dimension = getattr(spec.space, written.partition(":")[0])
        assert dimension == read
        kinds = {type(value) for value in vars(read).values()}
        assert {type(value) for value in vars(dimension).values()} == kinds  # 2 and 2.0 are equal, but not the same


# The key, what the file says of it below "name" and "data" (lines 1 and 2), its line, and words of the message.
MISTAKES = [
    ("sead", "sead: 1", 3, "did you mean 'seed'"),
    ("space.dropot", "space:\n  layers: 2\n  dropot: 0.1", 5, "did you mean 'dropout'"),
    ("learning_rate", "learning_rate: 0.1", 3, "belongs under space"),
    ("space.epochs", "space: {epochs: 3}", 3, "belongs under budget"),
    ("budget.seed", "budget: {seed: 3}", 3, "belongs at the top"),
    ("priority", "priority: 3", 3, "unknown key 'priority'"),
    ("champion", "champion: simple", 3, "did you mean 'simplest'"),
    ("champion", "champion: ensemble", 3, "can't be asked for yet"),
    ("search.champion", "search: {champion: best}", 3, "belongs at the top"),
    ("seed", "seed: -1", 3, "from 0 to 4,294,967,295, but is -1"),
    ("seed", "seed: true", 3, "whole number from 0 to 4,294,967,295, but is true"),
    ("seed", "seed: '5'", 3, "without quotes"),
    ("seed", "seed:", 3, "but is empty"),
    ("task", "task: clasification", 3, "did you mean 'classification'"),
    ("metric", "metric: accuracy", 3, "error | balanced_error | log_loss | mse | mae"),
    ("metric", "metric: mse\ntask: classification", 3, "error | balanced_error | log_loss for classification"),
    ("metric", "task: regression\nmetric: error", 4, "must be mse | mae for regression"),
    ("human", "metric: error\nhuman: 5", 4, "write 0.02 for 2 %"),
    ("human", "human: .nan", 3, "a number at least 0, but is .nan"),
    ("budget.target", "task: classification\nbudget:\n  trials: 3\n  target: 2", 6, "must be at most 1 for error"),
    ("model", "model: [mlp, rnn]", 3, "must be mlp | cnn, but is 'rnn'"),
    ("model", "model: []", 3, "the list is empty"),
    ("model", "model:\n  - mlp\n  - mlp", 5, "twice"),
    ("space", "space: 3", 3, "must be a mapping of keys to values, but is 3"),
    ("space.optimizer", "space:\n  optimizer: adamm", 4, "did you mean 'adam'"),
    ("space.optimizer", "space:\n  optimizer: [adam, agd]", 4, "did you mean 'sgd'"),
    ("space.optimizer", "space:\n  optimizer: {low: 1, high: 2}", 4, "a range {low, high} is for numbers only"),
    ("space.batch_norm", "space:\n  batch_norm: yes", 4, "must be true or false, but is 'yes'"),
    ("space.layers", "space:\n  layers: true", 4, "whole number from 1 to 100, but is true"),
    ("space.layers", "space:\n  layers: {low: 4, high: 1}", 4, "low <= high, but low is 4 and high is 1"),
    ("space.layers", "space:\n  layers:\n    low: 1\n    high: 2.5", 6, "but is 2.5"),
    ("space.layers", "space:\n  layers: {low: 1}", 4, "high is missing"),
    ("space.layers.hihg", "space:\n  layers: {low: 1, hihg: 3}", 4, "did you mean 'high'"),
    ("space.layers", "space:\n  layers: {low: 1, high: 8, step: 3}", 4, "write high: 7"),
    ("space.layers", "space:\n  layers: {low: 1, high: 8, step: 0}", 4, "but is 0"),
    ("space.dropout", "space:\n  dropout: {low: 0, high: 0.5, step: -0.1}", 4, "a number over 0, but is -0.1"),
    ("space.dropout", "space:\n  dropout: {low: 0, high: 0.5, step: 0.2}", 4, "write high: 0.4"),
    ("space.dropout", "space:\n  dropout: {low: 0, high: 0.5, log: true}", 4, "low over 0 as a log range"),
    ("space.neurons", "space:\n  neurons: {low: 8, high: 64, log: true, step: 8}", 4, "either log or step"),
    ("space.neurons", "space:\n  neurons: {low: 8, high: 64, log: 1}", 4, "must be true or false, but is 1"),
    ("space.dropout", "space:\n  dropout: 1", 4, "at least 0 and under 1, but is 1"),
    ("space.dropout", "space:\n  dropout:\n    - 0.1\n    - 1.5", 6, "but is 1.5"),
    ("space.dropout", "space:\n  dropout: []", 4, "the list is empty"),
    ("space.dropout", "space:\n  dropout: [[0.1]]", 4, "but is a list"),
    ("space.learning_rate", "space:\n  learning_rate: 0", 4, "a number over 0, but is 0"),
    ("space.learning_rate", "space:\n  learning_rate: .inf", 4, "but is .inf"),
    ("space.learning_rate", f"space:\n  learning_rate: 1{'0' * 400}", 4, "too many digits"),
    ("space.weight_decay", "space:\n  weight_decay: '0.1'", 4, "without quotes"),
    ("space.batch_size", "space:\n  batch_size: [32, 0]", 4, "from 1 to 1,000,000, but is 0"),
    ("space.batch_size", "space:\n  batch_size: [32, 64, 32.0]", 4, "32 is in the list twice"),
    ("space.pool", "model: cnn\nspace:\n  pool: ~", 5, "must be none | max | avg, but is empty"),
    ("space.filters", "model: cnn\nspace: {filters: 0}", 4, "but is 0"),
    ("space.filters", "space:\n  layers: 3\n  filters: 16", 5, "filters is a setting of CNNs, but model is mlp"),
    ("space.filter_size", "model: cnn\nspace:\n  filter_size: [3, 4]", 5, "odd where padding is same"),
    ("space.filter_size", "model: cnn\nspace:\n  filter_size: {low: 3, high: 5}", 5, "can be 4"),
    ("search.sampler", "search: {sampler: tpi}", 3, "did you mean 'tpe'"),
    ("search.pruner", "search:\n  pruner: off", 4, "asha | hyperband | median | none"),
    ("search.audit", "search: {audit: 5}", 3, "auto or a number at least 0 and at most 1, but is 5"),
    ("search.adit", "search: {adit: 0.1}", 3, "did you mean 'audit'"),
    ("audit", "audit: 0.1", 3, "belongs under search"),
    ("budget.stop_when", "budget: {stop_when: nogain}", 3, "did you mean 'no_gain'"),
    ("budget.stop_when", "budget: {stop_when: true}", 3, "must be no_gain, but is true"),
    ("budget.trials", "budget: {trials: 0}", 3, "from 1 to 1,000,000, but is 0"),
    ("budget.epochs", "budget: {epochs: 1.5}", 3, "whole number"),
    ("budget.minutes", "budget: {minutes: 0}", 3, "over 0"),
    ("workers.count", "workers: {count: atuo}", 3, "did you mean 'auto'"),
    ("workers.count", "workers: {count: 0}", 3, "must be auto or a whole number from 1 to 10,000, but is 0"),
    ("workers.cpus", "workers: {cpus: 0}", 3, "over 0"),
    ("workers.gpus", "workers: {gpus: 1.5}", 3, "a share of one GPU or a whole number"),
]


class TestMistakes:
    @pytest.mark.parametrize(("key", "lines", "line", "words"), MISTAKES)
    def test_says_the_line_the_key_and_what_would_be_right(self, key: str, lines: str, line: int, words: str) -> None:
        error = fault(f"{MINIMAL}{lines}\n")
        assert error.where == f"study.yaml:{line}, {key}"
        assert words in error.message
        assert "\n" not in error.message
        assert error.exit_status == 2

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("Digits 2!", "'digits-2' would do"),
            ("-a", "begin with a letter or digit"),
            ("a@2", "'a-2' would do"),
            ("x" * 65, "1 to 64 characters"),
            ("../../x", "begin with a letter or digit"),
            ("''", "1 to 4,000 characters"),
            ("2024", "put it in quotes"),
            ("[a]", "must be text, but is a list"),
        ],
    )
    def test_a_name_out_of_its_rule(self, name: str, words: str) -> None:
        error = fault(f"name: {name}\ndata: {{source: digits}}")
        assert error.where == "study.yaml:1, name"
        assert words in error.message

    @pytest.mark.parametrize("name", ["a", "7", "a.b_c-d", "x" * 64])
    def test_a_name_within_its_rule(self, name: str) -> None:
        assert parse_study(f'name: "{name}"\ndata: {{source: digits}}').name == name

    @pytest.mark.parametrize(
        ("lines", "line", "key", "words"),
        [
            (
                "split: {train: 0.7, validation: 0.2, test: 0.2}",
                4,
                "data.split",
                "add up to 1, but 0.7 + 0.2 + 0.2 = 1.1",
            ),
            ("split: {train: 0.8, test: 0.2}", 4, "data.split", "validation is missing"),
            ("split: {train: 1, validation: 0, test: 0}", 4, "data.split.train", "over 0 and under 1"),
            ("split:\n    train: 0.5\n    validation: 0.5\n    test: 0.0", 7, "data.split.test", "over 0 and under 1"),
            ("split: {column: fold, train: 0.5}", 4, "data.split", "not both"),
            ("split: {colum: fold}", 4, "data.split.colum", "did you mean 'column'"),
            ("split: random", 4, "data.split", "must be a mapping"),
            ("max_rows: 2", 4, "data.max_rows", "from 3"),
            ("features: a", 4, "data.features", "must be a list of column names"),
            ("features: []", 4, "data.features", "at least one column"),
            ("features: [a, b, a]", 4, "data.features", "'a' is in the list twice"),
            ("features:\n    - a\n    - 3", 6, "data.features", "put it in quotes"),
            ("target: y\n  features: [a, y]", 5, "data.features", "the target column 'y' among the inputs"),
            ("target: y\n  group: y", 5, "data.group", "'y'"),
            ("target: 3", 4, "data.target", "put it in quotes"),
        ],
    )
    def test_of_the_data(self, lines: str, line: int, key: str, words: str) -> None:
        error = fault(f"name: a\ndata:\n  source: digits\n  {lines}\n")
        assert error.where == f"study.yaml:{line}, {key}"
        assert words in error.message

    def test_missing_keys(self) -> None:
        assert fault("data: {source: digits}").where == "study.yaml, name"
        assert fault("name: a").where == "study.yaml, data"
        assert fault("name: a\ndata:\n  target: y").where == "study.yaml:2, data.source"

    def test_of_several_the_first_by_line_and_the_others_by_name(self) -> None:
        error = fault(
            """\
            name: a
            data: {source: digits}
            workers: {count: -1}
            space:
              dropout: 2
              layers: 0
              drop: 3
            budget: {trials: x}
            """
        )
        assert error.where == "study.yaml:3, workers.count"
        first, second = error.message.splitlines()
        assert first.startswith("count must be auto or a whole number")
        others = "space.dropout (line 5), space.layers (line 6), space.drop (line 7) and 1 more"
        assert second == f"Also to be corrected: {others}."

    def test_a_long_or_unprintable_value_is_cut(self) -> None:
        error = fault(f'{MINIMAL}task: "\\e[31m{"x" * 5000}"')
        assert len(error.message) < 200
        assert error.message.isprintable()


class TestReading:
    def test_a_file_is_named_as_its_user_named_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("mine.yaml").write_text(MINIMAL + "seed: x\n")
        with pytest.raises(StudyFileError, match=r"^mine\.yaml:3, seed: "):
            read_study("mine.yaml")

    @pytest.mark.parametrize(
        ("content", "where", "words"),
        [
            (b"", "", "empty"),
            (b"# nothing but this\n", "", "empty"),
            (b"- a\n- b\n", "", "must be a mapping of keys to values, but is a list"),
            (b"digits", "", "must be a mapping of keys to values, but is 'digits'"),
            (b"name: a\n# caf\xe9\n", ":2", "UTF-8"),
            (MINIMAL.encode("utf-16"), ":1", "UTF-8"),
            (b"#" * 1_000_001, "", "1,000,000 bytes"),
        ],
    )
    def test_what_is_no_study_file(self, tmp_path: Path, content: bytes, where: str, words: str) -> None:
        file = tmp_path / "study.yaml"
        file.write_bytes(content)
        with pytest.raises(StudyFileError) as caught:
            read_study(file)
        assert caught.value.where == f"{file}{where}"
        assert words in caught.value.message

    def test_no_file_and_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StudyFileError, match="no such file"):
            read_study(tmp_path / "study.yaml")
        with pytest.raises(StudyFileError, match="folder"):
            read_study(tmp_path)
        with pytest.raises(StudyFileError, match="can't be read"):
            read_study(tmp_path / ("x" * 300))

    def test_a_byte_order_mark_and_windows_lines(self, tmp_path: Path) -> None:
        file = tmp_path / "study.yaml"
        file.write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
        assert read_study(file) == parse_study(MINIMAL)


class TestSource:
    def source(self, written: str, file: Path) -> str:
        return parse_study(f"name: a\ndata: {{source: {json.dumps(written)}}}", str(file)).data.source

    @pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes", "hf:ylecun/mnist"])
    def test_a_name_stays(self, tmp_path: Path, name: str) -> None:
        assert self.source(name, tmp_path / "study.yaml") == name

    def test_a_path_is_taken_from_the_study_files_folder(self, tmp_path: Path) -> None:
        file = tmp_path / "studies" / "study.yaml"
        assert self.source("rows.csv", file) == str(tmp_path / "studies" / "rows.csv")
        assert self.source("../rows.csv", file) == str(tmp_path / "rows.csv")
        assert self.source("./digits", file) == str(tmp_path / "studies" / "digits")
        assert self.source("/elsewhere/rows.csv", file) == "/elsewhere/rows.csv"

    def test_the_home_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert self.source("~/rows.csv", Path("study.yaml")) == str(tmp_path / "rows.csv")

    @pytest.mark.parametrize(
        ("written", "words"),
        [
            ("digit", "did you mean 'digits'"),
            ("https://example.org/rows.csv", "download"),
            ("hf:", "must be followed by"),
            ("~nobody-of-this-name/rows.csv", "can't be a path"),
            ("x" * 3000, "can't be a path"),
            ("", "text of 1 to 4,000 characters"),
        ],
    )
    def test_what_is_no_source(self, tmp_path: Path, written: str, words: str) -> None:
        with pytest.raises(StudyFileError) as caught:
            self.source(written, tmp_path / "study.yaml")
        assert caught.value.where == f"{tmp_path}/study.yaml:2, data.source"
        assert words in caught.value.message

    def test_a_folder_that_is_there_is_no_misspelt_name(self, tmp_path: Path) -> None:
        (tmp_path / "digit").mkdir()
        assert self.source("digit", tmp_path / "study.yaml") == str(tmp_path / "digit")


def dataset(task: Task, *shape: int) -> Dataset:
    rows = Split(inputs=np.zeros((1, *shape), np.float32), targets=np.zeros(1, np.int64), rows=np.zeros(1, np.int64))
    return Dataset(
        task=task,
        train=rows,
        validation=rows,
        test=rows,
        preprocessing=Preprocessing(kind="image" if len(shape) == 3 else "table", task=task),
        input_shape=shape,
        outputs=2,
        split_hash="",
        example=None,
    )


class TestAgainstData:
    @pytest.mark.parametrize(("task", "metric"), [(Task.CLASSIFICATION, "error"), (Task.REGRESSION, "mse")])
    def test_the_datas_task_decides_the_metric(self, task: Task, metric: str) -> None:
        resolved = check_against_data(parse_study(MINIMAL), dataset(task, 4))
        assert (resolved.task, resolved.metric) == (task, metric)

    def test_a_task_in_the_file_decides_the_metric_at_once(self) -> None:
        assert parse_study(MINIMAL + "task: regression").metric is Metric.MSE

    @pytest.mark.parametrize(
        ("lines", "shape", "where", "words"),
        [
            ("metric: mae", (4,), "study.yaml:3, metric", "error | balanced_error | log_loss for classification"),
            ("seed: 1\ntask: regression", (4,), "study.yaml:4, task", "classification"),
            ("seed: 1\nhuman: 3", (4,), "study.yaml:4, human", "at most 1"),
            ("model: [mlp, cnn]", (4,), "study.yaml:3, model", "needs images"),
            ("model: cnn\nspace:\n  filter_size: [9, 11]", (1, 8, 20), "study.yaml:5, space.filter_size", "at most 8"),
            ("model: cnn", (3, 2, 2), "study.yaml", "larger than its image"),
        ],
    )
    def test_what_the_data_cannot_give(self, lines: str, shape: tuple[int, ...], where: str, words: str) -> None:
        with pytest.raises(StudyFileError) as caught:
            check_against_data(parse_study(MINIMAL + lines), dataset(Task.CLASSIFICATION, *shape))
        assert (caught.value.where or "").startswith(where)
        assert words in caught.value.message

    def test_one_filter_that_fits_is_enough(self) -> None:
        spec = parse_study(MINIMAL + "model: cnn\nspace: {filter_size: [7, 9]}")
        assert check_against_data(spec, dataset(Task.CLASSIFICATION, 1, 7, 7)).metric is Metric.ERROR

    def test_the_request_says_what_the_file_says(self) -> None:
        request = data_request(parse_study(FULL))
        assert (request.source, request.target, request.features) == ("digits", "label", ("a", "b"))
        assert (request.group, request.fractions, request.split_column) == ("patient", (0.7, 0.15, 0.15), None)
        assert (request.max_rows, request.task, request.seed) == (10_000, Task.CLASSIFICATION, 7)
        by_column = data_request(parse_study("name: a\ndata: {source: iris, split: {column: fold}}"))
        assert (by_column.fractions, by_column.split_column) == (None, "fold")


def test_reading_a_study_file_starts_nothing_heavy() -> None:
    program = "import sys, search.study_file; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "ray", "mlflow", "optuna", "sklearn", "pandas", "scipy", "datasets", "sqlalchemy"}
    assert heavy.isdisjoint(loaded)
