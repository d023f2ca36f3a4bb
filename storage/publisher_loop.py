"""How the publisher process is steered, and when it gives up. It polls the outbox until stdin says otherwise:

- the line ``drain`` (all studies) or ``drain 12`` (study 12): publish what is pending, then exit with 0;
- the end of stdin, without a drain before it: exit with 0 after the fact at hand.

A drain that sees nothing move for `PATIENCE` seconds, or that leaves facts set aside, exits with `BEHIND`, and the one
line on stdout says how many facts wait or were set aside, and why. Without mlflow, so that this is quick to test.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from neurosweep.errors import DiskFullError, UnreachableError
from storage.records import Behind
from storage.secrecy import HidingFormatter, hide, public_address, secrets_in

POLL = 0.5
"""Seconds between two looks at an empty outbox."""
PATIENCE = 20.0
"""Seconds without progress after which a drain gives up."""
BEHIND = 3
UNANSWERED = "MLflow does not answer"

log = logging.getLogger("storage.publisher")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one look at the outbox came to: facts published, and why others had to be put off."""

    published: int
    reason: str | None


class Orders:
    """What stdin has said so far, read by a thread of its own."""

    def __init__(self, lines: TextIO) -> None:
        self.stop = threading.Event()
        self.drain = threading.Event()
        self.study_id: int | None = None
        self._woken = threading.Event()
        threading.Thread(target=self._read, args=(lines,), name="orders", daemon=True).start()

    def _read(self, lines: TextIO) -> None:
        for line in lines:
            word, _, study_id = line.strip().partition(" ")
            if word == "drain":
                self.study_id = int(study_id) if study_id.isdigit() else None
                self.drain.set()
                self._woken.set()
        if not self.drain.is_set():
            self.stop.set()
        self._woken.set()

    def wait(self, seconds: float) -> None:
        """Sleep, but not through an order."""
        self._woken.wait(seconds)
        self._woken.clear()


def work(
    publish_due: Callable[[Callable[[], bool]], Turn],
    behind: Callable[[int | None], Behind],
    orders: Orders,
    patience: float = PATIENCE,
) -> int:
    """Publish until the orders say otherwise; returns the exit status.

    Args:
        publish_due: Publishes what is due, until it is told to stop.
        behind: How far MLflow is behind with a study, or with all.
        patience: Seconds.
    """
    reason, waiting, moved = "no attempt was made yet", -1, time.monotonic()
    while not orders.stop.is_set():
        draining = orders.drain.is_set()
        left, aside = waiting, None
        try:
            turn = publish_due(orders.stop.is_set)
            reason = turn.reason or reason
            if draining:
                aside = behind(orders.study_id)
                left, reason = aside.pending, aside.oldest_reason or reason
        except (UnreachableError, DiskFullError) as error:
            log.warning("%s", error)
            reason = str(error)
        if left != waiting or not draining:
            waiting, moved = left, time.monotonic()
        if draining and aside is not None and left == 0:
            said = in_words(aside)
            return _said(said) if said else 0
        if draining and time.monotonic() - moved > patience:
            count = _count(left) if left >= 0 else "an unknown number of facts"
            return _said(f"{count} wait for MLflow: {reason}")
        orders.wait(POLL)
    return 0


def _said(line: str) -> int:
    print(line, file=sys.stdout, flush=True)
    return BEHIND


def in_words(behind: Behind) -> str | None:
    """How far MLflow is behind, in a line; None where it is not."""
    aside = f"set aside: {behind.set_aside_reason}"
    if not behind.pending:
        return f"MLflow lacks {_count(behind.set_aside)}, {aside}" if behind.set_aside else None
    why = (behind.oldest_reason or "").replace(UNANSWERED, "it does not answer")
    said = f"MLflow is behind by {_count(behind.pending)}{f': {why}' if why else ''}"
    return f"{said}; {behind.set_aside} {aside}" if behind.set_aside else said


def _count(facts: int) -> str:
    return f"{facts} fact{'' if facts == 1 else 's'}"


def reason_of(error: BaseException, tracking: str) -> str:
    """One line that says why something could not be published, without secrets."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {type(link).__name__ for link in chain}
    text = str(error).strip() or type(error).__name__
    if refused := re.search(r"too many (\d+) error responses", text):
        return f"{UNANSWERED} at {public_address(tracking)}, or only with status {refused[1]}"
    if names & {"ConnectionError", "ConnectTimeout", "ReadTimeout", "OperationalError"}:
        return f"{UNANSWERED} at {public_address(tracking)}"
    if text.startswith("Failed to enforce schema"):
        text = text.rpartition("Error: ")[2]  # what comes before is all of the data
    # Hidden before it is cut: half a password is none that could be found.
    return hide(text.splitlines()[0], secrets_in(tracking))[:300]


def log_to(folder: Path, secrets: tuple[str, ...]) -> None:
    """Send every library's log to ``publisher.log`` in this folder, without secrets, and none to the screen."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(folder / "publisher.log", maxBytes=1_000_000, backupCount=1, encoding="utf-8")
    handler.setFormatter(HidingFormatter(secrets))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
