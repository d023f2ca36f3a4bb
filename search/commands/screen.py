"""What a running study looks like on stderr: a live picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Protocol

from search.commands.output import tell
from search.commands.words import duration, figure, in_short, plain

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Group, RenderableType

    from search.progress import Progress

_SECONDS_BETWEEN_LINES = 10
_FRAMES_A_SECOND = 4
_LINES_BESIDE_WORKERS = 8


class Screen(Protocol):
    """Shows progress between ``with`` and its end."""

    def __enter__(self) -> Screen: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def show(self, progress: Progress) -> None:
        """Take the newest snapshot. A terminal that has gone away is no reason to stop a study: nothing is raised."""

    def stopping(self) -> None:
        """Say that the study will stop soon. Safe in a signal handler."""


STOPPING = "stopping, what is done is kept (Control-C again ends at once)"


def open_screen() -> Screen:
    """The screen that fits stderr."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return LiveScreen()
    return PlainScreen()


class PlainScreen:
    """A line for each new stage and each new best trial, and else one every ten seconds."""

    def __init__(self) -> None:
        self._last: Progress | None = None
        self._printed_at = float("-inf")

    def __enter__(self) -> PlainScreen:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return

    def show(self, progress: Progress) -> None:
        if not self._is_news(progress):
            return
        self._last, self._printed_at = progress, progress.elapsed
        with contextlib.suppress(OSError):
            tell(as_line(progress))

    def stopping(self) -> None:
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), f"{STOPPING}\n".encode())

    def _is_news(self, progress: Progress) -> bool:
        last = self._last
        if last is None or (last.label, last.stage, last.best_trial) != (
            progress.label,
            progress.stage,
            progress.best_trial,
        ):
            return True
        return progress != last and progress.elapsed - self._printed_at >= _SECONDS_BETWEEN_LINES


class LiveScreen:
    """A picture that is drawn again four times a second, so that the clock goes on between two snapshots."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._progress: Progress | None = None
        self._taken_at = 0.0
        self._note = ""
        self._live = Live(
            console=self._console, get_renderable=self._picture, transient=True, refresh_per_second=_FRAMES_A_SECOND
        )

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._live.stop()

    def show(self, progress: Progress) -> None:
        self._progress, self._taken_at = progress, time.monotonic()

    def stopping(self) -> None:
        self._note = STOPPING

    def _picture(self) -> RenderableType:
        if self._progress is None:
            return self._note or "starting"
        room = max(1, self._console.height - _LINES_BESIDE_WORKERS)
        return picture(self._progress, since=time.monotonic() - self._taken_at, room=room, note=self._note)


def as_line(progress: Progress) -> str:
    """One snapshot as one line."""
    ended = progress.complete + progress.pruned + progress.failed
    parts = [f"{plain(progress.label)}: {plain(progress.stage)}, {ended}/{progress.total} trials"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.best_value is not None:
        settings = f" ({in_short(progress.best_params)})" if progress.best_params else ""
        parts.append(f"best {plain(progress.metric)} {figure(progress.best_value)}{settings}")
    parts.append(f"{duration(progress.elapsed)} gone")
    if progress.left is not None:
        parts.append(f"about {duration(progress.left)} left")
    return ", ".join(parts)


def picture(progress: Progress, since: float = 0.0, room: int = 16, note: str = "") -> Group:
    """One snapshot as the lines of a terminal.

    Args:
        progress: The snapshot.
        since: Seconds since it was taken.
        room: How many workers there is room for.
        note: A last line, where there is something to say.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    ended = progress.complete + progress.pruned + progress.failed
    head = Text.assemble((plain(progress.label), "bold"), f"  {plain(progress.stage)}")
    bar = Table.grid(padding=(0, 2))
    bar.add_row("", _bar(ended, progress.total, width=25), f"{ended}/{progress.total} trials", _clock(progress, since))
    counts = f"{progress.complete} complete, {progress.pruned} pruned, {progress.failed} failed"
    lines: list[RenderableType] = [head, bar, Text(f"  {counts}, {progress.running} running", style="dim")]
    if progress.best_value is not None:
        lines.append(_best(progress))
    lines.append(_workers(progress, room))
    if note:
        lines.append(Text(note, style="yellow"))
    return Group(*lines)


def _clock(progress: Progress, since: float) -> str:
    gone = duration(progress.elapsed + since)
    if progress.left is None:
        return gone
    return f"{gone}, about {duration(max(0.0, progress.left - since))} left"


def _best(progress: Progress) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    best = Table.grid(padding=(0, 2))
    best.add_row(
        Text(f"  best {plain(progress.metric)} {figure(progress.best_value)}", style="green"),
        Text(f"trial {progress.best_trial}" if progress.best_trial is not None else ""),
        Text(in_short(progress.best_params) if progress.best_params else ""),
    )
    return best


def _workers(progress: Progress, room: int) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    shown = progress.workers if len(progress.workers) <= room else progress.workers[: room - 1]
    for worker in shown:
        if worker.trial is None:
            grid.add_row(Text(f"  {plain(worker.name)}"), Text("waiting", style="dim"))
        else:
            epochs = Text(f"epoch {worker.epoch}/{worker.epochs}")
            grid.add_row(
                Text(f"  {plain(worker.name)}"),
                Text(f"trial {worker.trial}"),
                _bar(worker.epoch, worker.epochs, width=15),
                epochs,
            )
    hidden = progress.workers[len(shown) :]
    if not hidden:
        return grid
    busy = sum(worker.trial is not None for worker in hidden)
    return Group(grid, Text(f"  and {len(hidden)} more workers, {busy} of them training", style="dim"))


def _bar(done: int, total: int, width: int) -> RenderableType:
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=max(1, total), completed=min(done, max(1, total)), width=width)
