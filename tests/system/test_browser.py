"""MLflow's UI in a real browser, over a finished study, as `neurosweep ui` serves it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import mlflow
import pytest
from playwright.sync_api import Page, expect

from tests.browser import open_browser
from tests.mlflow_server import free_port
from tests.system.product import Product, interrupt

SECONDS = 120


@pytest.fixture(scope="module")
def study_page(product: Product) -> Iterator[str]:
    """The address that `neurosweep ui digits` prints, while it serves."""
    serving = product.start("ui", "digits", "--port", str(free_port()))
    assert serving.stdout is not None
    try:
        told = serving.stdout.readline()
        assert told.startswith("MLflow's UI: http://127.0.0.1:"), (told, serving.communicate())
        yield told.split()[-1]
    finally:
        interrupt(serving)


@pytest.fixture
def address(study_page: str) -> str:
    return study_page.partition("/#")[0]


@pytest.fixture
def page() -> Iterator[Page]:
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(1000 * SECONDS)
        expect.set_options(timeout=1000 * SECONDS)
        yield page


@pytest.fixture
def experiment(product: Product) -> tuple[str, list[Any]]:
    """The study's experiment and its trials' runs, in the order of the trials."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{product.folder}/.neurosweep/mlflow.db")
    experiment = client.get_experiment_by_name("digits").experiment_id
    runs = client.search_runs([experiment], max_results=100)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return experiment, sorted(children, key=lambda run: int(run.data.tags["neurosweep.trial"]))


def listed(words: list[str]) -> str:
    return quote(json.dumps(words, separators=(",", ":")))


def test_the_printed_address_opens_on_the_studys_runs(page: Page, study_page: str, best: dict[str, Any]) -> None:
    page.goto(study_page)
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    expect(page.locator(f"a[href*='{best['mlflow']['run_id']}']").first).to_be_visible()
    expect(page.locator("strong", has_text="13")).to_be_visible()  # twelve trials and the study's own run


def test_the_compare_view_shows_every_trial_with_its_settings(
    page: Page, address: str, experiment: tuple[str, list[Any]]
) -> None:
    number, runs = experiment
    ids = [run.info.run_id for run in runs]
    page.goto(f"{address}/#/compare-runs?runs={listed(ids)}&experiments={listed([number])}")
    expect(page.get_by_text("Comparing 12 Runs from 1 Experiment").first).to_be_visible()
    expect(page.locator(".js-plotly-plot svg").first).to_be_visible()
    for run in runs:
        expect(page.get_by_text(run.info.run_name, exact=True).first).to_be_attached()
    told = page.locator("body").inner_text()
    for run in runs:
        assert run.data.params["learning_rate"][:6] in told


def test_the_parents_own_page_draws_a_line_for_every_trial(
    page: Page, address: str, experiment: tuple[str, list[Any]], best: dict[str, Any]
) -> None:
    number, runs = experiment
    page.goto(
        f"{address}/#/experiments/{number}/runs/{best['mlflow']['run_id']}/artifacts/plots/parallel_coordinates.html"
    )
    plot = page.frame_locator("iframe").locator(".js-plotly-plot")
    expect(plot.locator("svg").first).to_be_visible()
    figure = plot.evaluate("plot => plot.data[0]")
    assert figure["type"] == "parcoords"
    labels = [dimension["label"] for dimension in figure["dimensions"]]
    assert labels[-1] == "validation error"
    assert any("learning_rate" in label for label in labels)
    recorded = [run.data.metrics["best_validation_error"] for run in runs]
    assert figure["dimensions"][-1]["values"] == pytest.approx(recorded)
