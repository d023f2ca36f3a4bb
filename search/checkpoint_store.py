"""The checkpoints of one study: what is needed to go on after a worker, a dispatcher or a machine has died.

``trials/<trial>/<epoch>.safetensors`` holds a trial's state at the end of an epoch, ``best/<number>.safetensors`` the
best network so far. Of each the newest two are kept: a damaged one falls back to the one before. Arrays are
safetensors, everything else is JSON in their metadata, and a checksum covers the whole file; no pickle.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from neurosweep.errors import NeurosweepError
from search.whole_files import SCRATCH, open_files
from trainer.work import Snapshot

logger = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[np.generic]]
T = TypeVar("T")

BEST, TRIALS = "best", "trials"
_NUMBERED = re.compile(r"(\d+)\.safetensors")

_NO_CHECKSUM = b"0" * 64
# No other text of the header can look like this: within a JSON text the quotes would be escaped.
_CHECKSUM = re.compile(rb'"checksum":"([0-9a-f]{64})"')


@dataclass(frozen=True, kw_only=True)
class BestNetwork:
    """The best complete trial's weights.

    Attributes:
        validation: Its metric on the validation split.
        weights: Arrays by name.
    """

    trial: int
    validation: float
    weights: Arrays


class DamagedError(NeurosweepError):
    """A checkpoint is not what was written."""


class CheckpointStore:
    """One study's checkpoints under an address: a folder's path or any fsspec address (s3://...).

    Several processes may have one each for the same address, as long as no two of them save the same trial at a time.

    Raises:
        BadInputError: Nothing is known of such an address, or its package is missing.
    """

    def __init__(self, address: str) -> None:
        self._files = open_files(address)
        # By folder, what this process knows of: a listing for each save would be a request to a remote store.
        self._known: dict[str, list[int]] = {}

    def save(self, snapshot: Snapshot) -> None:
        """Writes it whole or not at all; then removes all but this one and the newest one before it.

        Those of later epochs go as well: the trial went back behind them.

        Raises:
            OSError: It could not be written, or an old one not removed.
        """
        facts = {"trial": snapshot.trial, "epoch": snapshot.epoch, "facts": snapshot.facts}
        self._add(_folder(snapshot.trial), snapshot.epoch, seal(snapshot.arrays, facts))

    def load(self, trial: int, at_most: int) -> Snapshot | None:
        """The newest undamaged one of an epoch up to `at_most`.

        Raises:
            OSError: The store can't be read.
        """
        return self._newest(
            _folder(trial),
            at_most,
            lambda arrays, facts: Snapshot(
                trial=facts["trial"], epoch=facts["epoch"], arrays=arrays, facts=facts["facts"]
            ),
        )

    def drop(self, trials: Iterable[int]) -> None:
        """Removes what is kept of trials that have ended.

        Raises:
            OSError: The store can't be written.
        """
        folders = [_folder(trial) for trial in trials]
        for folder in folders:
            self._known.pop(folder, None)
        self._files.remove_folders(folders)

    def found(self) -> dict[int, list[int]]:
        """The epochs that are kept, damaged ones among them, by trial.

        Raises:
            OSError: The store can't be read.
        """
        epochs: dict[int, list[int]] = defaultdict(list)
        for name in self._files.names(TRIALS):
            _, trial, *file = name.split("/")
            if trial.isdecimal() and len(file) == 1 and (number := _NUMBERED.fullmatch(file[0])):
                epochs[int(trial)].append(int(number[1]))
        return {trial: sorted(epochs[trial]) for trial in sorted(epochs)}

    def clear(self) -> None:
        """Removes all trials' checkpoints; the best network never.

        Raises:
            OSError: The store can't be written.
        """
        self._known = {folder: numbers for folder, numbers in self._known.items() if folder == BEST}
        self._files.remove_folders([TRIALS])

    def keep_best(self, network: BestNetwork) -> None:
        """
        Raises:
            OSError: It could not be written, or an old one not removed.
        """
        facts = {"trial": network.trial, "validation": network.validation}
        self._add(BEST, max(self._numbers(BEST), default=0) + 1, seal(network.weights, facts))

    def best(self) -> BestNetwork | None:
        """The network that was kept last; where that one is damaged, the one before.

        Raises:
            OSError: The store can't be read.
        """
        return self._newest(
            BEST,
            math.inf,
            lambda arrays, facts: BestNetwork(trial=facts["trial"], validation=facts["validation"], weights=arrays),
        )

    def _add(self, folder: str, number: int, data: bytes) -> None:
        before = self._numbers(folder)
        self._files.write(_name(folder, number), data)
        kept = [*sorted(earlier for earlier in before if earlier < number)[-1:], number]
        # Before they are removed: what could not be removed now is left to `drop`.
        self._known[folder] = kept
        self._files.remove(_name(folder, old) for old in before if old not in kept)

    def _newest(self, folder: str, at_most: float, read: Callable[[Arrays, Any], T]) -> T | None:
        numbers, _ = self._listed(folder)
        for number in sorted(numbers, reverse=True):
            if number > at_most:
                continue
            name = _name(folder, number)
            try:
                return read(*unseal(self._files.read(name)))
            except FileNotFoundError:
                logger.info("the checkpoint %s was removed meanwhile", name)
            except (DamagedError, KeyError, TypeError) as error:
                logger.info("the checkpoint %s is damaged: %s", name, error)
        return None

    def _numbers(self, folder: str) -> list[int]:
        if folder not in self._known:
            self._known[folder], left_over = self._listed(folder)
            self._files.remove(left_over)
        return self._known[folder]

    def _listed(self, folder: str) -> tuple[list[int], list[str]]:
        """The numbers of the files in a folder, and the files whose process died while it wrote them."""
        names = self._files.names(folder)
        numbers = [_NUMBERED.fullmatch(name.rpartition("/")[2]) for name in names]
        return [int(number[1]) for number in numbers if number], [name for name in names if name.endswith(SCRATCH)]


def seal(arrays: Arrays, facts: dict[str, Any]) -> bytes:
    """One file of arrays and JSON values, with a checksum."""
    # safetensors takes an array's bytes as they lie in memory.
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    data = safetensors.numpy.save(whole, {"checksum": _NO_CHECKSUM.decode(), "facts": json.dumps(facts)})
    start, end = _checksum_place(data)
    return b"".join((data[:start], _checksum(data, start, end), data[end:]))


def unseal(data: bytes) -> tuple[Arrays, Any]:
    """The arrays and the JSON values of a file.

    Raises:
        DamagedError: It is not one that `seal` has made, or not all of it.
    """
    start, end = _checksum_place(data)
    if _checksum(data, start, end) != data[start:end]:
        raise DamagedError("its checksum is another one")
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return safetensors.numpy.load(data), json.loads(header["__metadata__"]["facts"])
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"it is no checkpoint of this version: {error}") from None


def _checksum_place(data: bytes) -> tuple[int, int]:
    """Where the checksum stands in the header, which comes first."""
    found = _CHECKSUM.search(data)
    if found is None:
        raise DamagedError("it has no checksum")
    return found.span(1)


def _checksum(data: bytes, start: int, end: int) -> bytes:
    """Of the whole file but the checksum itself. Processors have instructions for SHA-256: it is faster than BLAKE2."""
    view = memoryview(data)
    checksum = hashlib.sha256(view[:start])
    checksum.update(view[end:])
    return checksum.hexdigest().encode()


def _folder(trial: int) -> str:
    return f"{TRIALS}/{trial}"


def _name(folder: str, number: int) -> str:
    return f"{folder}/{number}.safetensors"
