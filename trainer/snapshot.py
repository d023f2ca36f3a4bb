"""From a trial under way to a snapshot of it, and back, to the last bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neurosweep.errors import BadInputError
from trainer.device_data import DeviceData
from trainer.member import Best, Member, with_batches_tracked
from trainer.precision import Precision
from trainer.settings import Settings
from trainer.work import Metric, Snapshot, TrialWork

Arrays = dict[str, npt.NDArray[np.generic]]


def take(member: Member, trial: int) -> Snapshot:
    """The member's state, copied."""
    best, learned = member.best, member.learned()
    if best is not None:
        # What PyTorch's batch norms count follows from the epoch.
        learned |= {f"best.{name}": best.weights[name] for name in member.parts}
    arrays = _copied(learned)
    for name, generator in member.generators.items():
        arrays[f"generator.{name}"] = generator.get_state().numpy()
    facts = {
        "identity": _identity(member.settings, member.seed, member.metric, member.epochs),
        "steps": member.steps,
        "precision": member.precision.value,
        "best": None if best is None else {"epoch": best.epoch, "validation": best.validation},
    }
    return Snapshot(trial=trial, epoch=member.epoch, arrays=arrays, facts=facts)


def restored(work: TrialWork, snapshot: Snapshot, data: DeviceData) -> Member:
    """A new member in the state of the snapshot.

    Raises:
        BadInputError: It is of another trial or past the segment's end, or a tensor has another shape or type.
        Exception: Of any other kind, where the content is not what `take` makes.
    """
    facts = snapshot.facts
    same = snapshot.trial == work.trial
    if not same or facts["identity"] != _identity(work.settings, work.seed, work.metric, work.epochs):
        raise BadInputError(f"a snapshot must be one of the trial that goes on, {work.trial}, not of another one")
    if not 1 <= snapshot.epoch <= min(work.until, work.epochs):
        raise BadInputError(f"a snapshot must be of an epoch from 1 to {work.until}, not of {snapshot.epoch}")
    member = Member(work.settings, work.seed, work.metric, work.epochs, data, Precision(facts["precision"]))
    member.epoch, member.steps = int(snapshot.epoch), int(facts["steps"])
    for name, tensor in member.learned().items():
        # Into the tensors that are there: the layers are views of them.
        tensor.copy_(_like(tensor, snapshot.arrays, name))
    for name, generator in member.generators.items():
        generator.set_state(torch.tensor(snapshot.arrays[f"generator.{name}"]))
    if facts["best"] is not None:
        member.best = _best(member, facts["best"], snapshot.arrays)
    return member


def _best(member: Member, facts: dict[str, Any], arrays: Arrays) -> Best:
    epoch = int(facts["epoch"])
    if not 1 <= epoch <= member.epoch:
        raise BadInputError(f"a snapshot's best epoch must be one of its {member.epoch}, not {epoch}")
    weights = {name: _like(tensor, arrays, f"best.{name}") for name, tensor in member.parts.items()}
    steps_per_epoch = member.steps // member.epoch
    return Best(epoch, float(facts["validation"]), with_batches_tracked(weights, steps_per_epoch * epoch))


def _identity(settings: Settings, seed: int, metric: Metric, epochs: int) -> dict[str, Any]:
    """What makes a trial the same trial, as JSON gives it back."""
    identity = {"settings": settings.to_json(), "seed": seed, "metric": metric, "epochs": epochs}
    return json.loads(json.dumps(identity))  # type: ignore[no-any-return]


def _copied(tensors: Mapping[str, Tensor]) -> Arrays:
    """Copies, fetched together: from a GPU each transfer waits for the device."""
    arrays: Arrays = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors.values()):
        alike = {name: tensor for name, tensor in tensors.items() if tensor.dtype is dtype}
        together = torch.cat([tensor.flatten() for tensor in alike.values()]).cpu().numpy()
        stop = 0
        for name, tensor in alike.items():
            start, stop = stop, stop + tensor.numel()
            arrays[name] = together[start:stop].reshape(tensor.shape)
    return arrays


def _like(tensor: Tensor, arrays: Arrays, name: str) -> Tensor:
    """A copy of the array on the tensor's device."""
    found = torch.tensor(arrays[name])
    if found.shape != tensor.shape or found.dtype is not tensor.dtype:
        raise BadInputError(
            f"a snapshot's {name} must be {tensor.dtype} of shape {tuple(tensor.shape)}, "
            f"not {found.dtype} of shape {tuple(found.shape)}"
        )
    return found.to(tensor.device)
