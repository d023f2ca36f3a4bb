"""How much memory something took at its peak."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """The most bytes held since this was made, beyond what was held then: of the GPU, or else of the process.

    Linux keeps a process's peak and can be told to begin anew. Elsewhere it is that of the process's whole life: what
    takes less than something before it appears to take nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
            return
        try:
            _CLEAR.write_text("5")
            self._before = _kept("VmRSS")
        except OSError:
            self._before = _life_long()

    def bytes(self) -> int:
        if self._device.type == "cuda":
            return max(0, torch.cuda.max_memory_allocated(self._device) - self._before)
        try:
            held = _kept("VmHWM")
        except OSError:
            held = _life_long()
        return max(0, held - self._before)


def _kept(name: str) -> int:
    """A figure that the kernel keeps of this process."""
    lines = _STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _life_long() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
