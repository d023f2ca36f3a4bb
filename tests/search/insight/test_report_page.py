"""The report's page: what stands in it, and what it does in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from search.insight.findings import Report, Verdict
from search.insight.glossary import glossary
from search.insight.page_data import curve_columns, parameter_columns, trial_columns
from search.insight.plain_words import VERDICTS, in_plain_words
from search.insight.report_page import report_page
from tests.search.insight.samples import sample_report, sample_study, sample_trials

TRIALS, EPOCHS = sample_trials(450)
REPORT = sample_report(TRIALS)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


def page_of(report: Report = REPORT) -> str:
    return report_page(report, sample_study(), TRIALS, EPOCHS)


def data_in(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def in_words(html: str) -> str:
    """The text without scripts, style and tags."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)
    return unescape(" ".join(re.sub(r"<[^>]*>", " ", text).split()))


# What stands in it


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_verdict_comes_first_in_plain_words(verdict: Verdict) -> None:
    text = in_words(page_of(replace(REPORT, diagnosis=replace(REPORT.diagnosis, verdict=verdict))))
    words = VERDICTS[verdict]
    assert text.index(words.title, len(words.title) + 20) < text.index(words.meaning) < text.index("How good is good?")


def test_every_term_that_is_linked_is_explained() -> None:
    pages = [page_of(), page_of(replace(REPORT, metric="log_loss")), page_of(replace(REPORT, metric="mae"))]
    linked = {link for html in pages for link in re.findall(r'href="#(term-[^"]+)"', html)}
    linked |= {f"term-{entry.slug}" for words in VERDICTS.values() for entry in glossary() if entry.name == words.term}
    assert len(linked) >= 15
    for html in pages:
        assert linked <= set(re.findall(r'id="(term-[^"]+)"', html))


def test_the_terms_are_those_of_the_documentation() -> None:
    packaged = Path("search/pages/files/terms.md").read_text(encoding="utf-8")
    assert packaged == Path("docs/terms.md").read_text(encoding="utf-8")
    for words in VERDICTS.values():
        assert words.term in {entry.name.lower() for entry in glossary()}


def test_it_names_no_address_but_its_own_places() -> None:
    html = page_of()
    assert not re.findall(r'(?:src|href)="(?!#)', html)
    assert not re.findall(r"(?:fetch|XMLHttpRequest|import)\s*\(", html)
    assert set(re.findall(r"https?://[^\"' ]+", html)) <= {"http://www.w3.org/2000/svg"}


def test_text_of_the_data_is_never_markup() -> None:
    html = page_of(replace(REPORT, warnings=("<script>alert(1)</script>",), study="</script><b>"))
    assert "<script>alert" not in html
    assert "<b>1</b>" not in html  # a suspect's label


def test_a_report_without_its_optional_parts_is_a_page_as_well() -> None:
    bare = replace(
        REPORT,
        levels=replace(REPORT.levels, simple=None, simple_models={}, human=None, test=None),
        seeds=None,
        data_curve=None,
        openings=(),
        extra_runs=(),
        not_run=(),
        warnings=(),
        diagnosis=replace(REPORT.diagnosis, advice=()),
        space=replace(REPORT.space, borders=(), importances={}, interactions=(), barren=(), good={}),
        stopping=replace(REPORT.stopping, audited=0, share=None),
        state="running",
    )
    text = in_words(page_of(bare))
    assert "still running" in text
    assert "Still sealed" in text
    assert "Test error" not in text


def test_the_numbers_of_all_trials_are_in_the_page() -> None:
    data = data_in(page_of())
    assert data["trials"]["number"] == [trial.number for trial in TRIALS]
    assert data["trials"]["validation"] == pytest.approx(
        [
            trial.validation if trial.validation is None else pytest.approx(trial.validation, rel=1e-4)
            for trial in TRIALS
        ]
    )
    assert data["levels"]["test"] == [0.02, 0.009, 0.044]
    assert data["parameters"][0]["name"] == "learning_rate"  # the most important one
    assert data["parameters"][0]["log"] is True


def test_a_setting_that_never_varies_has_no_axis_and_one_that_a_trial_lacks_has_a_gap() -> None:
    columns = {column["name"]: column for column in parameter_columns(TRIALS, sample_study().spec["space"], {})}
    assert "momentum" not in columns
    lacking = [trial.number for trial in TRIALS if "neurons_4" not in trial.params]
    assert [number for number, value in enumerate(columns["neurons_4"]["values"]) if value is None] == lacking
    assert columns["batch_size"]["choices"] == ["32", "64", "128"]
    assert columns["batch_norm"]["choices"] == ["no", "yes"]


def test_the_curves_are_cut_off_behind_the_best_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = curve_columns(TRIALS, EPOCHS)
    assert whole["all"] and whole["start"][-1] == len(EPOCHS)
    monkeypatch.setattr("search.insight.page_data.MOST_EPOCHS", 100)
    cut = curve_columns(TRIALS, EPOCHS)
    assert not cut["all"]
    assert cut["trials"] == whole["trials"][: len(cut["trials"])]
    assert cut["start"][-1] <= 100
    best = min(TRIALS, key=lambda trial: (trial.validation is None, trial.validation))
    assert cut["trials"][0] == best.number


def test_what_is_not_finite_is_unknown() -> None:
    trials = [replace(TRIALS[0], validation=float("inf"), train=float("nan"))]
    columns = trial_columns(trials)
    assert (columns["validation"], columns["train"]) == ([None], [None])


@pytest.mark.parametrize(
    ("share", "words"), [(0.0, "not once"), (0.02, "once in 50"), (0.5, "5 times in 10"), (0.96, "nearly always")]
)
def test_shares_are_told_as_counts(share: float, words: str) -> None:
    levels = replace(REPORT.levels, test=replace(REPORT.levels.validation, value=share))
    assert words in in_plain_words(replace(REPORT, levels=levels))


# What it does


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    if CHROMIUM is None:
        missing = "Chromium is not installed, so the report's page is not looked at."
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            args=[*QUIET, *root],
            viewport={"width": 1280, "height": 900},
        )
        context.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield context
        context.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page_of(), encoding="utf-8")
    return file


@pytest.fixture
def page(browser: BrowserContext, file: Path) -> Iterator[Page]:
    """The page, opened; nothing may go wrong in it, and nothing may be asked for beyond the file."""
    page = browser.new_page()
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    def watch(request: Request) -> None:
        if not request.url.startswith("file:"):
            complaints.append(request.url)

    page.on("console", hear)
    page.on("request", watch)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(file.as_uri())
    yield page
    page.close()
    assert complaints == []


def inked(page: Page, chart: str) -> int:
    """Pixels of a picture that something is drawn on, more than the pale lines of trials that are filtered out."""
    script = """canvas => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
        .filter((value, at) => at % 4 === 3 && value > 60).length"""
    return int(page.locator(f"[data-chart={chart}] canvas").evaluate(script))


def settled(page: Page, chart: str) -> int:
    """The same, once it does not change any more."""
    before, now = -1, inked(page, chart)
    while before != now:
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        before, now = now, inked(page, chart)
    return now


def test_it_opens_with_every_picture_drawn(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_contain_text("It memorises")
    for chart in ("levels", "importances", "seeds", "rows", "classes"):
        place = page.locator(f"[data-chart={chart}]")
        place.scroll_into_view_if_needed()
        expect(place.locator("svg")).to_be_visible()
    for chart in ("parallel", "history", "curves"):
        page.locator(f"[data-chart={chart}]").scroll_into_view_if_needed()
        expect(page.locator(f"[data-chart={chart}] canvas")).to_be_visible()
        assert settled(page, chart) > 1000
    assert page.locator("[data-chart=levels] circle").count() == 6


def test_a_range_keeps_the_trials_in_it_everywhere(page: Page) -> None:
    page.locator("#filters").scroll_into_view_if_needed()
    lines = settled(page, "parallel")
    page.get_by_label("Setting to filter by").select_option("validation error")
    page.get_by_label("from", exact=True).fill("0")
    page.get_by_label("to", exact=True).fill("0.05")
    page.get_by_role("button", name="Filter", exact=True).click()
    kept = sum(trial.validation is not None and trial.validation <= 0.05 for trial in TRIALS)
    expect(page.get_by_role("status")).to_have_text(f"{kept} of 450 trials")
    assert settled(page, "parallel") < lines
    page.locator("#table").scroll_into_view_if_needed()
    expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", str(kept + 1))
    page.locator("#filters").scroll_into_view_if_needed()
    page.get_by_role("button", name="Show all").click()
    expect(page.get_by_role("status")).to_have_text("450 of 450 trials")


def test_a_drag_along_an_axis_filters_and_a_click_on_it_clears(page: Page) -> None:
    place = page.locator("[data-chart=parallel]")
    place.scroll_into_view_if_needed()
    settled(page, "parallel")
    box = place.bounding_box()
    assert box is not None
    x = box["x"] + float(page.evaluate("parallel.xs[0]"))
    middle = box["y"] + 180
    page.mouse.move(x, middle)
    page.mouse.down()
    page.mouse.move(x, middle + 60, steps=4)
    page.mouse.up()
    low, high = page.evaluate("filters.get(axes[0])")
    kept = sum(low <= trial.params["learning_rate"] <= high for trial in TRIALS)
    assert 0 < kept < 450
    expect(page.get_by_role("status")).to_have_text(f"{kept} of 450 trials")
    page.mouse.click(x, middle)
    expect(page.get_by_role("status")).to_have_text("450 of 450 trials")


def test_the_table_holds_a_window_of_rows_and_is_walked_with_the_keyboard(page: Page) -> None:
    grid = page.get_by_role("grid")
    grid.scroll_into_view_if_needed()
    best = str(REPORT.trial)
    expect(page.locator(".grid .row.active [role=gridcell]").first).to_have_text(best)
    assert page.locator(".grid [data-at]").count() < 60
    grid.focus()
    page.keyboard.press("End")
    expect(page.locator('.grid [data-at="449"].active')).to_be_visible()
    assert page.locator(".grid [data-at]").count() < 60
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator(".grid .row.chosen")).to_have_count(2)  # the winner was chosen from the start
    grid.get_by_role("button", name="epochs").click()
    first = page.locator(".grid [data-at='0'] [role=gridcell]").nth(4)
    expect(first).to_have_text(str(min(trial.epochs for trial in TRIALS)))


def test_a_term_opens_its_explanation(page: Page) -> None:
    page.locator(".verdict .badge a").click()
    expect(page.locator("#term-overfitting p").first).to_be_visible()


def test_the_price_of_a_worker_hour_is_the_readers(page: Page) -> None:
    page.get_by_label("Workers").fill("4")
    page.get_by_label("Price of a worker hour").fill("9")
    row = page.locator("#costs tr").first.locator("td")
    expect(row.last).to_have_text(f"{412 / 3600 * 4 * 9:.2f}")


def test_it_fits_a_phone_and_follows_the_dark(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    for chart in ("levels", "parallel", "curves", "seeds"):
        page.locator(f"[data-chart={chart}]").scroll_into_view_if_needed()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    red, green, blue = page.evaluate("rgb('paper')")
    assert max(red, green, blue) < 60
