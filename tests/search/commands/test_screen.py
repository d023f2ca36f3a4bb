import io
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from search.commands.screen import STOPPING, PlainScreen, as_line, picture
from search.progress import Progress, WorkerActivity

TRAINING = Progress(
    label="digits@2",
    metric="error",
    stage="training",
    total=100,
    complete=12,
    pruned=28,
    failed=2,
    running=2,
    best_trial=31,
    best_value=0.0148,
    best_params={
        "model": "cnn",
        "filters_1": 16,
        "filter_size_1": 3,
        "stride_1": 1,
        "pool_1": "max",
        "neurons_1": 128,
        "neurons_2": 64,
        "activation": "leaky_relu",
        "learning_rate": 0.0021,
        "optimizer": "adamw",
        "dropout": 0.11,
        "batch_norm": True,
        "batch_size": 64,
    },
    workers=(
        WorkerActivity(name="worker-1", trial=42, epoch=12, epochs=30),
        WorkerActivity(name="worker-2", trial=None, epoch=0, epochs=30),
    ),
    elapsed=31.0,
    left=44.0,
)


def drawn(progress: Progress, since: float = 0.0, room: int = 16, note: str = "", encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, record=True, width=80, force_terminal=True, color_system=None)
    console.print(picture(progress, since=since, room=room, note=note))
    return console.export_text().splitlines()


def test_the_picture_says_trials_best_workers_and_time_left() -> None:
    text = "\n".join(drawn(TRAINING, note=STOPPING))
    for part in (
        "digits@2",
        "training",
        "42/100",
        "31 s, about 44 s left",
        "12 complete, 28 pruned, 2 failed, 2 running",
        "best error 0.0148",
        "trial 31",
        "cnn 16@3x3 max, dense 128-64",
        "trial 42",
        "epoch 12/30",
        "waiting",
        STOPPING,
    ):
        assert part in text


def test_no_line_of_the_picture_is_wider_than_the_terminal_and_the_clock_is_whole() -> None:
    long = replace(TRAINING, label="x" * 64, stage="testing the winner", elapsed=4000.0, left=7890.0)
    lines = drawn(long)
    assert max(map(len, lines)) <= 80
    assert any("1 h 6 min, about 2 h 11 min left" in line for line in lines)


def test_the_clock_goes_on_between_two_snapshots() -> None:
    assert "36 s, about 39 s left" in drawn(TRAINING, since=5.0)[1]
    assert "about 0 s left" in drawn(TRAINING, since=500.0)[1]


def test_workers_that_do_not_fit_are_counted() -> None:
    workers = tuple(
        WorkerActivity(name=f"worker-{n}", trial=n if n < 50 else None, epoch=1, epochs=30) for n in range(64)
    )
    lines = drawn(replace(TRAINING, workers=workers), room=10)
    assert sum("worker-" in line for line in lines) == 9
    # 9 are shown; of the other 55, those numbered 9 to 49 train.
    assert lines[-1].strip() == "and 55 more workers, 41 of them training"


def test_a_terminal_without_utf8_gets_ascii() -> None:
    assert "\n".join(drawn(TRAINING, encoding="ascii")).isascii()


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    hostile = replace(
        TRAINING,
        metric="err\x1b[2J",
        stage="failed: \x1b]0;x",
        best_params={"model": "\x1b]0;x\x07", "activation": "\x9b1m"},
    )
    text = "\n".join([*drawn(hostile), as_line(hostile)])
    assert not [character for character in text if ord(character) < 32 and character != "\n"]
    assert "\x9b" not in text


def test_one_line_says_it_all_where_there_is_no_terminal() -> None:
    assert as_line(TRAINING) == (
        "digits@2: training, 42/100 trials, 2 failed, best error 0.0148 "
        "(cnn 16@3x3 max, dense 128-64, leaky_relu, adamw 0.0021, dropout 0.11, batch norm, batch 64), "
        "31 s gone, about 44 s left"
    )


def test_plain_lines_come_with_news_and_else_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    screen = PlainScreen()
    screen.show(TRAINING)
    screen.show(replace(TRAINING, complete=13, elapsed=32.0))  # a trial more is no news so soon
    screen.show(replace(TRAINING, complete=14, elapsed=33.0, best_trial=44, best_value=0.01))
    screen.show(replace(TRAINING, complete=15, elapsed=42.9, best_trial=44, best_value=0.01))
    screen.show(replace(TRAINING, complete=16, elapsed=43.0, best_trial=44, best_value=0.01))
    screen.show(replace(TRAINING, complete=16, elapsed=43.1, best_trial=44, best_value=0.01, stage="done"))
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(",")[1].strip() for line in err.splitlines()] == [
        "42/100 trials",
        "44/100 trials",
        "46/100 trials",
        "46/100 trials",
    ]


def test_a_closed_stderr_does_not_stop_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    PlainScreen().show(TRAINING)
