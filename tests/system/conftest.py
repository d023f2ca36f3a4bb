"""One finished study for all tests that look at one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.product import DIGITS, Product


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A finished study, run as its user runs it."""
    product = Product(tmp_path_factory.mktemp("digits"))
    product.write(DIGITS)
    product("run", "study.yaml")
    return product


@pytest.fixture(scope="session")
def best(product: Product) -> dict[str, Any]:
    document: dict[str, Any] = product.json("best", "digits")
    return document
