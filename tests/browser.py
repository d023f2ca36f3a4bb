"""A real browser without a window, for tests that look at pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Chromium with an empty profile; where it is not installed the test is skipped, and fails in CI."""
    if CHROMIUM is None:
        missing = "Chromium is not installed, so pages are not looked at."
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *root])
        try:
            yield browser
        finally:
            browser.close()
