"""Products by either library against float64."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from trainer import products
from trainer.precision import Precision

SHAPES = [(1, 1, 1), (20, 30, 40), (128, 129, 96), (200, 300, 64), (300, 130, 257)]


@pytest.mark.parametrize("lags", [False, True])
@pytest.mark.parametrize("transposed", ["", "a", "b", "ab"])
@pytest.mark.parametrize(("rows", "inner", "columns"), SHAPES)
def test_products_are_those_of_float64(rows: int, inner: int, columns: int, transposed: str, lags: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator) for shape in ((rows, inner), (inner, columns)))
    a, b = (each.t().contiguous().t() if name in transposed else each for name, each in (("a", a), ("b", b)))
    out = torch.full((rows, columns), torch.nan)
    with patch.object(products, "mkl_lags", lambda: lags):
        call = products.product(a, b, out)
    call()
    torch.testing.assert_close(out, (a.double() @ b.double()).float(), rtol=1e-4, atol=1e-4)
    a.zero_()
    call()
    assert not out.any(), "what the operands hold when it is called counts"


def test_products_in_bfloat16_are_rounded_to_it() -> None:
    a, b, out = torch.full((2, 2), 1 + 2**-10), torch.eye(2), torch.empty(2, 2)
    products.product(a, b, out, Precision.BFLOAT16)()
    assert torch.equal(out, torch.ones(2, 2))


def test_one_dnn_gets_large_matrices_without_gaps_alone() -> None:
    """With gaps between the rows of the second it takes a thousand times as long."""
    large, small = torch.ones(256, 256), torch.ones(32, 32)
    assert products._is_large(large, large)
    assert products._is_large(large, large.t())
    assert not products._is_large(small, small)
    assert not products._is_large(large, torch.ones(256, 257)[:, :256])
    assert not products._is_large(large.t(), large)
