"""Rows that take minutes run on one kind of database; on both where ``NEUROSWEEP_FAULT_RUNS`` asks for more runs."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "NEUROSWEEP_FAULT_RUNS" in os.environ:
        return
    spared = [item for item in items if _is_of_another_kind(item)]
    if spared:
        config.hook.pytest_deselected(items=spared)
        items[:] = [item for item in items if item not in spared]


def _is_of_another_kind(item: pytest.Item) -> bool:
    mark, case = item.get_closest_marker("minutes_on"), getattr(item, "callspec", None)
    return mark is not None and case is not None and case.params["database_url"] != mark.args[0]
