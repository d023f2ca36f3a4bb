"""How many workers fit on the machine or the cluster, and what each one gets of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from neurosweep.errors import BadInputError

MOST_ON_A_GPU = 4
"""So many workers share one GPU where the study file leaves both numbers to us."""


@dataclass(frozen=True, kw_only=True)
class WorkerShape:
    """How many workers, and what each one holds.

    Attributes:
        cpus: CPU threads of each worker; under 1, several share one.
        gpus: Share of a GPU of each worker.
    """

    count: int
    cpus: float
    gpus: float


@dataclass(frozen=True, kw_only=True)
class Node:
    """What one machine has."""

    cpus: float
    gpus: float


def fit_workers(count: int | str, cpus: float, gpus: float | str, nodes: Sequence[Node]) -> WorkerShape:
    """The workers that a study gets here. A worker is on one machine, and its share is of one GPU.

    ``auto`` workers are as many as fit; where there are GPUs, at most four share one, and each gets an even share.

    Raises:
        BadInputError: One worker, or as many as were asked for, does not fit.
    """
    _check_one("CPUs", cpus, max((node.cpus for node in nodes), default=0.0), "workers.cpus")
    if gpus == "auto":
        share = _even_share(count, cpus, nodes)
    else:
        share = float(gpus)
        _check_one("GPUs", share, max((node.gpus for node in nodes), default=0.0), "workers.gpus")
    room = places(cpus, share, nodes)
    wanted = room if count == "auto" else int(count)
    if wanted > room or room == 0:
        machines = f" of {len(nodes)} machines" if len(nodes) > 1 else ""
        raise BadInputError(
            f"{wanted or 1} workers of {cpus:g} CPUs and {share:g} GPUs do not fit on "
            f"{sum(node.cpus for node in nodes):g} CPUs and {sum(node.gpus for node in nodes):g} GPUs{machines}: "
            "lower workers.count, or say auto.",
            "workers.count",
        )
    return WorkerShape(count=wanted, cpus=cpus, gpus=share)


def _check_one(what: str, needed: float, largest: float, key: str) -> None:
    if needed > largest:
        raise BadInputError(
            f"A worker needs {needed:g} {what}, and no machine here has more than {largest:g}: lower {key}.", key
        )


def _even_share(count: int | str, cpus: float, nodes: Sequence[Node]) -> float:
    """The largest share of a GPU with which all workers fit; none where no machine has both a GPU and the CPUs."""
    most = MOST_ON_A_GPU if count == "auto" else int(count)
    # Ray counts in ten-thousandths.
    shares = [math.floor(10_000 / on_one) / 10_000 for on_one in range(1, most + 1)]
    wanted = places(cpus, shares[-1], nodes) if count == "auto" else int(count)
    if wanted == 0 or not any(node.gpus for node in nodes):
        return 0.0
    return next((share for share in shares if places(cpus, share, nodes) >= wanted), shares[-1])


def places(cpus: float, share: float, nodes: Sequence[Node]) -> int:
    """How many workers of these CPUs and this share of a GPU fit, machine by machine."""
    return sum(int(min(node.cpus / cpus + 1e-9, _by_gpu(share, node.gpus))) for node in nodes)


def _by_gpu(share: float, gpus: float) -> float:
    if share == 0:
        return math.inf
    return int(gpus / share + 1e-9) if share >= 1 else int(gpus) * int(1 / share + 1e-9)
