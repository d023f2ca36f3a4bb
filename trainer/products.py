"""Matrix products a x b -> out, by whichever library is the faster one for their size."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from trainer.precision import Precision

Call = Callable[[], object]

LEAST_OPERATIONS = 3e6
"""From so many floating-point operations on a product is worth a call of oneDNN, which takes 12 microseconds by itself.

Measured in microseconds on one core of an EPYC with AVX-512, MKL / oneDNN (rows of a, columns of a, columns of b):

    (64, 65, 64)     6 / 14     (256, 257, 32)   42 / 30     (256, 257, 256)   296 / 148
    (128, 129, 64)  20 / 20     (256, 257, 64)   78 / 47     (100, 7489, 128)  1741 / 762

Of default spaces that is 1.05 times the speed of CNNs on 28x28 (up to 1.24 where many features meet the first dense
layer), and nothing for MLPs on the digits, whose products are small.
"""


@functools.cache
def mkl_lags() -> bool:
    """Whether MKL, with which PyTorch multiplies matrices, leaves half of the processor idle: on those of other makers
    than Intel it keeps to AVX2, where oneDNN uses their AVX-512.

    It is a fact of the machine, not a measurement: the same trial must give the same numbers on another one like it.
    """
    cpuinfo = Path("/proc/cpuinfo")
    return (
        torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and cpuinfo.exists()
        and "AuthenticAMD" in cpuinfo.read_text()
    )


def product(a: Tensor, b: Tensor, out: Tensor, precision: Precision = Precision.FLOAT32) -> Call:
    """The call that writes a x b into `out`, whatever the three hold by then."""
    if precision is Precision.BFLOAT16:
        return lambda: out.copy_(torch.mm(a.bfloat16(), b.bfloat16()))
    if a.device.type == "cpu" and a.dtype is torch.float32 and mkl_lags() and _is_large(a, b):
        linear = torch.ops.mkldnn._linear_pointwise.default
        # It takes b transposed, and neither a bias nor an activation.
        return lambda: out.copy_(linear(a, b.t(), None, "none", [], ""))
    return partial(torch.mm, a, b, out=out)


def _is_large(a: Tensor, b: Tensor) -> bool:
    # A transposed `a` would be copied, which eats the gain; and of a `b` with gaps between its rows (or columns) oneDNN
    # makes a thousand times the work.
    gapless = b.is_contiguous() or b.t().is_contiguous()
    return a.is_contiguous() and gapless and 2 * a.numel() * b.shape[1] >= LEAST_OPERATIONS
