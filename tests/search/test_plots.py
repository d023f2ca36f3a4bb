"""The pictures of a study: what is in them, and that no trial, however odd, keeps them from being drawn."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from matplotlib import figure as mpl_figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from PIL import Image

from search.plots import draw
from storage.records import EpochRow, TrialRecord, TrialState
from trainer.data.dataset import Dataset, Preprocessing, Split, Task
from trainer.work import TestResult

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


def trial(
    number: int, state: TrialState = TrialState.COMPLETE, validation: float | None = 0.5, **params: Any
) -> TrialRecord:
    return TrialRecord(
        number=number,
        state=state,
        params=params,
        settings={},
        seed=number,
        train=0.1,
        validation=validation,
        epochs=2,
        best_epoch=2,
        seconds=1.0,
        weights=10,
        worker="worker-1",
        error=None,
        started_at=WHEN,
        ended_at=WHEN,
    )


def epoch(trial_number: int, number: int, train: float, validation: float) -> EpochRow:
    return EpochRow(
        trial=trial_number,
        epoch=number,
        train_loss=1.0,
        train_metric=train,
        validation_loss=1.0,
        validation_metric=validation,
        seconds=0.1,
        at=WHEN,
    )


def optuna_study(
    values: list[float],
    params: list[dict[str, Any]],
    space: dict[str, BaseDistribution],
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    for value, chosen in zip(values, params, strict=True):
        study.add_trial(
            optuna.trial.create_trial(value=value, params=chosen, distributions={name: space[name] for name in chosen})
        )
    return study


def dataset(task: Task, classes: tuple[str, ...] = ()) -> Dataset:
    nothing = Split(inputs=np.zeros((0, 1)), targets=np.zeros(0), rows=np.zeros(0))
    return Dataset(
        task=task,
        train=nothing,
        validation=nothing,
        test=nothing,
        preprocessing=Preprocessing(kind="table", task=task.value, classes=classes, target_name="price"),
        input_shape=(1,),
        outputs=max(1, len(classes)),
        split_hash="",
        example=[],
    )


class Drawn:
    """A folder of pictures and, by file, the axes that they were made of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.figures: dict[str, mpl_figure.Figure] = {}

    def __call__(
        self,
        *,
        trials: list[TrialRecord] | None = None,
        epochs: list[EpochRow] | None = None,
        study: optuna.Study | None = None,
        dataset: Dataset | None = None,
        test: TestResult | None = None,
    ) -> set[str]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it would be on the user's screen
            draw(
                self.folder,
                metric="error",
                trials=trials or [],
                epochs=epochs or [],
                study=study or optuna_study([], [], {}),
                dataset=dataset,
                test=test,
            )
        for picture in self.folder.glob("*.png"):
            with Image.open(picture) as image:
                image.verify()
                assert min(image.size) > 100
        return {file.name for file in self.folder.iterdir()}

    def axes(self, name: str) -> Any:
        return self.figures[name].axes[0]

    def page(self) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """The axes of the parallel coordinates by their label, and the lines' colours."""
        html = (self.folder / "parallel_coordinates.html").read_text(encoding="utf-8")
        call = re.search(r'Plotly\.newPlot\(\s*"[^"]+",\s*', html)
        assert call is not None
        data, _ = json.JSONDecoder().raw_decode(html[call.end() :])
        return {dimension["label"]: dimension for dimension in data[0]["dimensions"]}, data[0]["line"]


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drawn]:
    """Looks on while matplotlib saves its figures."""
    looking = Drawn(tmp_path / "plots")
    save = mpl_figure.Figure.savefig

    def savefig(self: mpl_figure.Figure, fname: Path, **options: Any) -> None:
        looking.figures[fname.name] = self
        save(self, fname, **options)

    monkeypatch.setattr(mpl_figure.Figure, "savefig", savefig)
    yield looking


def points(axes: Any) -> dict[str, list[tuple[float, float]]]:
    return {dots.get_label(): [(float(x), float(y)) for x, y in dots.get_offsets()] for dots in axes.collections}


# Odd studies


def test_a_study_without_a_trial_has_empty_pictures(drawn: Drawn) -> None:
    assert drawn() == {"history.png", "learning_curves.png"}


def test_a_study_without_one_good_trial_is_drawn(drawn: Drawn) -> None:
    trials = [trial(0, TrialState.FAILED, None), trial(1, TrialState.FAILED, math.nan), trial(2, TrialState.RUNNING)]
    epochs = [epoch(1, 1, math.nan, math.nan)]

    assert "history.png" in drawn(trials=trials[:2], epochs=epochs)
    assert points(drawn.axes("history.png")) == {}
    assert not (drawn.folder / "parallel_coordinates.html").exists()


def test_drawing_again_replaces_what_is_there(drawn: Drawn) -> None:
    drawn(trials=[trial(0)])
    before = (drawn.folder / "history.png").read_bytes()
    drawn(trials=[trial(0), trial(1, validation=0.1)])
    assert (drawn.folder / "history.png").read_bytes() != before


# The history


def test_the_history_shows_complete_and_pruned_trials_and_the_best_so_far(drawn: Drawn) -> None:
    trials = [
        trial(0, validation=0.5),
        trial(1, TrialState.PRUNED, 0.1),  # better, but not trained to its end: no best
        trial(2, validation=0.6),
        trial(3, TrialState.FAILED, 0.01),
        trial(4, validation=0.3),
        trial(5, TrialState.PRUNED, None),
        trial(6, validation=0.4),
    ]
    drawn(trials=trials)

    axes = drawn.axes("history.png")
    assert points(axes) == {"complete": [(0, 0.5), (2, 0.6), (4, 0.3), (6, 0.4)], "pruned": [(1, 0.1)]}
    (line,) = axes.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0, 2, 4, 6], [0.5, 0.5, 0.3, 0.3])
    assert line.get_drawstyle() == "steps-post"


@pytest.mark.parametrize("odd", [math.nan, math.inf, None])
def test_a_trial_without_a_finite_figure_leaves_the_rest_as_it_is(drawn: Drawn, odd: float | None) -> None:
    drawn(trials=[trial(0, validation=odd), trial(1, validation=0.5), trial(2, TrialState.PRUNED, odd), trial(3)])

    axes = drawn.axes("history.png")
    assert points(axes) == {"complete": [(1, 0.5), (3, 0.5)]}
    assert list(axes.lines[0].get_ydata()) == [0.5, 0.5]
    curves = {line.get_label() for line in drawn.axes("learning_curves.png").lines}
    assert {label for label in curves if label.startswith("trial")} == {"trial 1", "trial 3"}


# The learning curves


def test_the_learning_curves_are_those_of_the_ten_best_complete_trials_best_first(drawn: Drawn) -> None:
    trials = [trial(number, validation=1 - number / 100) for number in range(12)]
    trials[3] = trial(3, validation=trials[11].validation)  # as good as the best, and earlier
    trials += [trial(12, TrialState.PRUNED, 0.0), trial(13, TrialState.FAILED, 0.0)]
    drawn(trials=trials, epochs=[epoch(number, 1, 0.2, 0.3) for number in range(14)])

    labels = [line.get_label() for line in drawn.axes("learning_curves.png").lines]
    assert [label for label in labels if label.startswith("trial")] == [
        f"trial {number}" for number in (3, 11, 10, 9, 8, 7, 6, 5, 4, 2)
    ]


def test_a_learning_curve_is_solid_for_validation_and_dashed_for_training_in_the_order_of_epochs(drawn: Drawn) -> None:
    epochs = [epoch(0, 3, 0.1, 0.45), epoch(0, 1, 0.6, 0.7), epoch(1, 1, 0.9, 0.9), epoch(0, 2, math.nan, 0.5)]
    drawn(trials=[trial(0), trial(1, TrialState.PRUNED)], epochs=epochs)

    validation, train = drawn.axes("learning_curves.png").lines
    assert list(validation.get_xdata()) == list(train.get_xdata()) == [1, 2, 3]
    assert list(validation.get_ydata()) == [0.7, 0.5, 0.45]
    np.testing.assert_equal(list(train.get_ydata()), [0.6, math.nan, 0.1])
    assert (validation.get_linestyle(), train.get_linestyle()) == ("-", "--")
    assert validation.get_color() == train.get_color()


# The importances


def random_study(count: int, value: Any, names: str = "xy", seed: int = 0) -> optuna.Study:
    rng = np.random.default_rng(seed)
    params = [{name: float(rng.random()) for name in names} for _ in range(count)]
    return optuna_study([value(chosen) for chosen in params], params, dict.fromkeys(names, FloatDistribution(0, 1)))


@pytest.mark.parametrize("decisive", ["x", "y"])
def test_the_setting_that_decides_has_the_longest_bar_on_top(drawn: Drawn, decisive: str) -> None:
    drawn(study=random_study(60, lambda chosen: (chosen[decisive] - 0.3) ** 2))

    axes = drawn.axes("importances.png")
    lengths = {
        label.get_text(): bar.get_width() for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)
    }
    assert set(lengths) == {"x", "y"}
    assert lengths[decisive] > 0.8
    assert sum(lengths.values()) == pytest.approx(1)
    assert axes.get_yticklabels()[-1].get_text() == decisive  # bars grow upwards


@pytest.mark.parametrize(("count", "there"), [(7, False), (8, True)])
def test_importances_of_a_handful_of_trials_are_not_shown(drawn: Drawn, count: int, there: bool) -> None:
    assert ("importances.png" in drawn(study=random_study(count, lambda chosen: chosen["x"]))) is there


def test_trials_that_are_all_equally_good_have_no_importances_and_no_warning(drawn: Drawn) -> None:
    assert "importances.png" not in drawn(study=random_study(20, lambda chosen: 0.0))


def test_only_settings_that_every_complete_trial_has_are_weighed(drawn: Drawn) -> None:
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1), "c": CategoricalDistribution(["a", "b"])}
    params: list[dict[str, Any]] = [{"x": n / 12, **({"c": "a"} if n % 2 else {})} for n in range(12)]
    values = [n / 12 for n in range(12)]
    drawn(study=optuna_study(values, params, space))
    assert [label.get_text() for label in drawn.axes("importances.png").get_yticklabels()] == ["x"]

    apart: list[dict[str, Any]] = [{"x": 0.5} if n % 2 else {"c": "a"} for n in range(12)]
    drawn.figures.clear()
    drawn(study=optuna_study(values, apart, space))
    assert "importances.png" not in drawn.figures


def test_a_search_of_nothing_has_no_importances(drawn: Drawn) -> None:
    assert "importances.png" not in drawn(study=optuna_study([n / 9 for n in range(9)], [{}] * 9, {}))


# The parallel coordinates


def test_parallel_coordinates_have_an_axis_for_all_that_differs_and_a_line_for_each_measured_trial(
    drawn: Drawn,
) -> None:
    trials = [
        trial(0, validation=0.5, momentum=0.9, layers=1, activation="relu", learning_rate=0.001),
        trial(1, TrialState.PRUNED, 0.7, momentum=0.9, layers=3, activation="gelu", learning_rate=0.1),
        trial(2, TrialState.FAILED, None, momentum=0.9, layers=9, activation="tanh", learning_rate=0.01),
        trial(3, validation=0.25, momentum=0.9, layers=2, activation="gelu", learning_rate=0.01),
    ]
    drawn(trials=trials)

    axes, line = drawn.page()
    assert list(axes) == ["layers", "activation", "log10 learning_rate", "validation error"]
    assert axes["layers"]["values"] == [1, 3, 2]
    assert axes["log10 learning_rate"]["values"] == pytest.approx([-3, -1, -2])
    assert axes["validation error"]["values"] == [0.5, 0.7, 0.25]
    activation = axes["activation"]
    named = dict(zip(activation["tickvals"], activation["ticktext"], strict=True))
    assert [named[value] for value in activation["values"]] == ["relu", "gelu", "gelu"]
    assert line["color"] == [0.5, 0.7, 0.25]
    assert line["cmin"] == 0.25


def test_what_a_trial_lacks_is_below_the_axis(drawn: Drawn) -> None:
    trials = [
        trial(0, layers=1, neurons_1=10, kind="a"),
        trial(1, layers=2, neurons_1=20, neurons_2=30, kind="b"),
        trial(2, layers=2, neurons_1=10, neurons_2=40),
        trial(3, layers=1, neurons_1=10, only_one=7),
    ]
    drawn(trials=trials)

    axes, _ = drawn.page()
    lacking = axes["neurons_2"]["values"]
    assert lacking[1:3] == [30, 40]
    assert lacking[0] == lacking[3] == 29  # a tenth of the axis' length
    assert axes["kind"]["values"][2:] == [-1, -1]
    assert set(axes["kind"]["tickvals"]) == {0, 1}
    # A value that is there or not is a difference as well.
    assert axes["only_one"]["ticktext"] == ["7"]
    assert axes["only_one"]["values"] == [-1, -1, -1, 0]


def test_a_range_with_zero_or_booleans_is_no_logarithm(drawn: Drawn) -> None:
    trials = [trial(0, dropout=0.0, batch_norm=True), trial(1, dropout=0.5, batch_norm=False)]
    drawn(trials=trials)

    axes, _ = drawn.page()
    assert axes["dropout"]["values"] == [0.0, 0.5]
    assert axes["batch_norm"]["ticktext"] == ["False", "True"]
    assert axes["batch_norm"]["values"] == [1, 0]


def test_one_trial_alone_is_a_page_too(drawn: Drawn) -> None:
    assert "parallel_coordinates.html" in drawn(trials=[trial(0, layers=1)])
    assert list(drawn.page()[0]) == ["validation error"]


def test_the_page_needs_nothing_from_the_network(drawn: Drawn) -> None:
    drawn(trials=[trial(0)])
    html = (drawn.folder / "parallel_coordinates.html").read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*\bsrc=", html) == []


def test_a_settings_name_can_not_end_the_pages_script(drawn: Drawn) -> None:
    drawn(trials=[trial(0, kind="</script><b>x"), trial(1, kind="b")])
    html = (drawn.folder / "parallel_coordinates.html").read_text(encoding="utf-8")
    assert "</script><b>x" not in html
    assert "</script><b>x" in drawn.page()[0]["kind"]["ticktext"]


# The winner


def outcome(truth: list[int], predicted: list[int], classes: int) -> TestResult:
    return TestResult(outputs=np.eye(classes, dtype=np.float32)[predicted], value=0.0, truth=np.array(truth))


def test_the_confusion_matrix_counts_true_classes_by_row_and_predicted_ones_by_column(drawn: Drawn) -> None:
    cats = dataset(Task.CLASSIFICATION, ("cat", "dog", "owl"))
    names = drawn(dataset=cats, test=outcome([0, 0, 0, 1, 1], [0, 1, 1, 1, 0], 3))

    assert "confusion_matrix.png" in names
    assert "predicted_against_true.png" not in names
    axes = drawn.axes("confusion_matrix.png")
    # An owl neither occurred nor was it predicted, and has its row all the same.
    assert np.asarray(axes.images[0].get_array()).tolist() == [[1, 2, 0], [1, 1, 0], [0, 0, 0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "owl"]
    written = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "1", (0, 1): "2", (1, 0): "1", (1, 1): "1"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_a_confusion_matrix_of_hundreds_of_classes_has_no_words(drawn: Drawn) -> None:
    many = dataset(Task.CLASSIFICATION, tuple(f"class {number}" for number in range(300)))
    drawn(dataset=many, test=outcome(list(range(300)), list(range(300)), 300))

    axes = drawn.axes("confusion_matrix.png")
    assert len(axes.texts) == 0
    assert np.asarray(axes.images[0].get_array()).trace() == 300


def test_a_regression_is_drawn_as_predicted_against_true(drawn: Drawn) -> None:
    truth, outputs = np.array([100.0, 250, 80]), np.array([110.0, 200, 90], np.float32)
    names = drawn(dataset=dataset(Task.REGRESSION), test=TestResult(outputs=outputs, value=0.0, truth=truth))

    assert "confusion_matrix.png" not in names
    axes = drawn.axes("predicted_against_true.png")
    assert axes.collections[0].get_offsets().tolist() == [[100, 110], [250, 200], [80, 90]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("true price", "predicted price")
    assert list(axes.lines[0].get_xdata()) == list(axes.lines[0].get_ydata()) == [80, 250]


def test_without_a_look_at_the_test_split_nothing_is_drawn_of_it(drawn: Drawn) -> None:
    assert drawn(trials=[trial(0)], dataset=dataset(Task.CLASSIFICATION, ("a", "b"))) == {
        "history.png",
        "learning_curves.png",
        "parallel_coordinates.html",
    }
