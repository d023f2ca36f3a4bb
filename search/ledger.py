"""What the dispatcher knows of trials that are under way, and what its next transaction holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from storage.facts import trial_ended
from storage.records import Batch, EndedTrial, EpochRow, ProposedTrial, StudyRecord, TrialRecord, TrialState
from trainer.settings import Settings
from trainer.work import EpochResult


@dataclass
class Live:
    """A trial that has not ended.

    Attributes:
        recorded_worker: The worker that the database has for it.
        curve: Its validation metric after each epoch.
        deaths: How many workers have died while they trained it alone, since it last came to a segment's end.
        overdue: It is past its time, and its worker does not answer.
        squeezed: It ran out of memory, and was given a worker of its own.
        spared: How often its worker was lost with its machine.
        pack: The lowest number among those of its last pack.
    """

    settings: Settings
    seed: int
    worker: int
    recorded_worker: int | None = None
    curve: list[float] = field(default_factory=list)
    best_epoch: int = 0
    validation: float | None = None
    seconds: float = 0.0
    memory: int | None = None
    deaths: int = 0
    overdue: bool = False
    squeezed: bool = False
    spared: int = 0
    pack: int | None = None

    @property
    def epochs(self) -> int:
        return len(self.curve)


class Ledger:
    """What the next transaction holds, and how each trial ended.

    Args:
        study: The study.
        known: The trials of an earlier dispatcher.
    """

    def __init__(self, study: StudyRecord, known: Sequence[TrialRecord]) -> None:
        self._study = study
        self._proposed: list[ProposedTrial] = []
        self._epochs: list[EpochRow] = []
        self._ended: list[EndedTrial] = []
        self._deaths: dict[int, int] = {}
        self._would_stop: dict[int, int] = {}
        self.outcomes: dict[int, EndedTrial | TrialRecord] = {
            trial.number: trial for trial in known if trial.state is not TrialState.RUNNING
        }

    def propose(self, proposed: ProposedTrial) -> None:
        self._proposed.append(proposed)

    def add_epoch(self, trial: int, epoch: EpochResult, at: datetime) -> None:
        self._epochs.append(
            EpochRow(
                trial=trial,
                epoch=epoch.epoch,
                train_loss=epoch.train_loss,
                train_metric=epoch.train_metric,
                validation_loss=epoch.validation_loss,
                validation_metric=epoch.validation_metric,
                seconds=epoch.seconds,
                at=at,
            )
        )

    def add_row(self, row: EpochRow) -> None:
        self._epochs.append(row)

    def set_deaths(self, trial: int, count: int) -> None:
        self._deaths[trial] = count

    def set_would_stop(self, trial: int, epoch: int) -> None:
        self._would_stop[trial] = epoch

    def end(self, ended: EndedTrial) -> None:
        self._ended.append(ended)
        self.outcomes[ended.number] = ended

    def unwritten_epochs(self, trial: int) -> list[EpochRow]:
        return [row for row in self._epochs if row.trial == trial]

    def batch(self, assigned: dict[int, str]) -> Batch | None:
        """All that is to be written; None where there is nothing.

        Args:
            assigned: The worker's name for each trial that has been given to another than the database has.
        """
        if not (self._proposed or self._epochs or self._ended or self._deaths or assigned):
            return None
        return Batch(
            proposed=tuple(self._proposed),
            epochs=tuple(self._epochs),
            ended=tuple(self._ended),
            facts=tuple(trial_ended(self._study, trial.number) for trial in self._ended),
            assigned=assigned,
            deaths=dict(self._deaths),
            would_stop=dict(self._would_stop),
        )

    def written(self) -> None:
        """The batch is in the database."""
        self._proposed, self._epochs, self._ended, self._deaths, self._would_stop = [], [], [], {}, {}
