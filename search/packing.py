"""How many trials a worker is given at once, and how many are in flight.

A pack has as many trials as make about a second of work on one core, so that what happens between two packs (an answer
through Ray, a transaction, new proposals) is a few percent of it; and never so many that the search goes blind:

- at most a quarter of the study is in flight, however small its networks are, as proposals learn nothing from trials
  that have not ended;
- at most `MOST_ON_CPU` trials (`MOST_ON_GPU`) to a worker: more would not make it faster;
- towards the end, no more than the worker's share of what is left, so that all workers end together.

A trial that takes a second or more is a pack by itself. A worker that has fewer than `AHEAD` trials in hand gets the
next pack before it has answered, so that it need not wait; with larger packs the wait is short beside the work.

All of this is reckoned from the settings, not from the clock: with one worker, the same seed gives the same packs and
so the same trials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from trainer.cost import training_flops
from trainer.settings import Settings

if TYPE_CHECKING:
    from search.pool import Pool
    from trainer.data.dataset import Dataset

PACK_FLOPS = 3e10
"""About a second on one core: packs of small dense networks run at 25 to 30 GFLOP/s."""

GPU_FACTOR = 30
"""A GPU is given so many times that."""

MOST_ON_CPU, MOST_ON_GPU = 16, 64

AHEAD = 2
"""Trials that a worker has in hand at least, while there are any."""

MANY_WORKERS = 8
"""With more workers than this, each has a pack waiting as well: their answers come thick and fast, and one that waits
for its turn would stand still."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """The sizes of a study's packs.

    Attributes:
        trials: How many the study is to have.
        workers: How many train them.
        on_gpu: Whether each has a share of a GPU.
        rows: Of the train split.
        input_shape: (features,) or (channels, height, width).
        outputs: Of every network.
    """

    trials: int
    workers: int
    on_gpu: bool
    rows: int
    input_shape: tuple[int, ...]
    outputs: int

    @classmethod
    def of(cls, trials: int, dataset: Dataset, pool: Pool) -> Self:
        """For a pool that is open."""
        return cls(
            trials=trials,
            workers=pool.size,
            on_gpu=pool.on_gpu,
            rows=len(dataset.train),
            input_shape=dataset.input_shape,
            outputs=dataset.outputs,
        )

    @property
    def packs_ahead(self) -> int:
        """Packs that a worker is given before it has answered."""
        return 2 if self.workers > MANY_WORKERS else 1

    @property
    def budget(self) -> float:
        """What the trials of a pack may cost together, in floating-point operations; one may cost more."""
        return PACK_FLOPS * (GPU_FACTOR if self.on_gpu else 1)

    def most(self, left: int) -> int:
        """Trials of a pack at most, at least one.

        Args:
            left: Trials of the study that have not been proposed yet.
        """
        quarter = self.trials // (4 * self.workers * self.packs_ahead)
        return max(1, min(quarter, self.share(left)))

    def share(self, left: int) -> int:
        """Networks of a pack at most where nothing is to be learnt from them for the next: a worker's share of what is
        left."""
        return max(1, min(MOST_ON_GPU if self.on_gpu else MOST_ON_CPU, -(-left // self.workers)))

    def cost(self, settings: Settings, epochs: int) -> float:
        """Floating-point operations of so many epochs of a trial."""
        return training_flops(settings, self.input_shape, self.outputs) * self.rows * epochs
