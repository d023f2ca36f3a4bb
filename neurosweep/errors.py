"""The one family of errors. A message says the rule, the value that broke it, and the remedy.

A class exists where a caller catches it or where the program's exit status differs. The command line prints
``message`` and ``where``; nothing here may ever hold a password or a token.
"""

from __future__ import annotations

from typing import ClassVar


class NeurosweepError(Exception):
    """Something went wrong that neurosweep can explain.

    Args:
        message: One or two lines: what is wrong and what would be right.
        where: The place: a file, a key and a line where there is one, such as ``study.yaml:12, space.dropout``.
    """

    kind: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class BadInputError(NeurosweepError):
    """Arguments, a study file or data that can't be used as they are."""

    kind = "bad_input"
    exit_status = 2


class StudyFileError(BadInputError):
    """The study file breaks a rule."""

    kind = "study_file"


class DataError(BadInputError):
    """The data can't be read, or does not fit what the study asks of it.

    Attributes:
        key: The key of the study file that it is about, such as ``data.target``; None: ``data.source``.
    """

    kind = "data"
    key: str | None = None


class StudyTakenError(BadInputError):
    """Another process works on this study."""


class UnreachableError(NeurosweepError):
    """A database, a Ray cluster or an MLflow server that was asked for does not answer."""

    kind = "unreachable"
    exit_status = 3


class DiskFullError(NeurosweepError):
    """There is no room left where something has to be written; it may be made."""

    kind = "disk_full"


class NoSuchStudyError(NeurosweepError):
    """No study has this name."""

    kind = "no_such_study"
    exit_status = 4


class LeaseLostError(NeurosweepError):
    """Another dispatcher has taken this study over; nothing more may be written for it here."""

    kind = "lease_lost"


class InterruptedStudyError(NeurosweepError):
    """The user has asked for the end while something was waited for."""

    kind = "interrupted"
    exit_status = 130


class StudyFailedError(NeurosweepError):
    """The study ended without one good trial."""

    kind = "study_failed"
