"""A training step as a CUDA graph: launched as one piece, where a GPU would wait for hundreds of small calls."""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM_UPS = 3
"""Steps that run as they are before one is captured: libraries set themselves up at first use, which a graph can't
hold. They are steps like any other; a capture itself runs nothing."""

Step = Callable[[], None]


def capture(step: Step) -> Step:
    """What replays the step's kernels on the addresses that they have now."""
    graph = torch.cuda.CUDAGraph()
    # 'thread_local': another thread of the process may use the GPU meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay  # type: ignore[no-any-return, unused-ignore]


class Replayed:
    """Calls a step, from the fourth call on by replaying it.

    Args:
        step: Reads and writes tensors at fixed addresses alone, and never asks the device for a value.
    """

    def __init__(self, step: Step, capture: Callable[[Step], Step] = capture) -> None:
        self._step, self._capture = step, capture
        self._replay: Step | None = None
        self._calls = 0

    def __call__(self) -> None:
        self._calls += 1
        if self._calls <= WARM_UPS:
            self._step()
            return
        if self._replay is None:
            self._replay = self._capture(self._step)
        self._replay()


def for_device(device: torch.device, step: Step) -> Step:
    """Replayed on a GPU; on a CPU a call is a call."""
    return Replayed(step) if device.type == "cuda" else step
