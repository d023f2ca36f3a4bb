"""The best network so far, as the dispatcher has it in memory and the checkpoint store on disk."""

from __future__ import annotations

from pathlib import Path

from search.checkpoint_store import BestNetwork, CheckpointStore

__all__ = ["BestNetwork", "Checkpoint"]


class Checkpoint:
    """Keeps the best network of one study.

    Args:
        place: The study's store; a path stands for the store in the folder that it is in.

    Attributes:
        best: What an earlier dispatcher kept, and since then what this one kept last.
    """

    def __init__(self, place: CheckpointStore | Path) -> None:
        self._store = place if isinstance(place, CheckpointStore) else CheckpointStore(str(place.parent))
        self.best = self._store.best()

    def keep(self, network: BestNetwork) -> None:
        """Replaces what was kept before."""
        self._store.keep_best(network)
        self.best = network
