"""The page of a table's model: what it holds, and what a real browser computes and shows of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from sklearn.metrics import confusion_matrix, log_loss

from neurosweep.errors import BadInputError
from search.explain.columns import dependence
from tests.browser import open_browser
from tests.search.explain.image_cases import digits
from tests.search.explain.table_cases import Model, write_table
from tests.trainer.trainer_cases import settings_of
from trainer.data.columns import Column, ColumnKind
from trainer.data.preprocessing import encode_table
from trainer.settings import Activation

TOLERANCE = 1e-4
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 780}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "shop.csv")


@pytest.fixture(scope="module")
def classes(table: Path) -> Model:
    return Model.drawn(table, "bought", settings_of(neurons=(9, 5), activation=Activation.TANH, batch_norm=True))


@pytest.fixture(scope="module")
def numbers(table: Path) -> Model:
    return Model.drawn(table, "price", settings_of(neurons=(7,), activation=Activation.SILU))


def data_of(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture(scope="module")
def held(classes: Model) -> Any:
    return data_of(classes.html)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def opened(browser: Browser, html: str, folder: Path, **options: Any) -> Page:
    """The page in a window of its own; whatever goes wrong in it, or reaches out of it, fails `closed`."""
    file = folder / "page.html"
    file.write_text(html, encoding="utf-8")
    page = browser.new_page(**{"viewport": WIDE, **options})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: wrong.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    expect(page.locator("#check")).to_contain_text("differ from PyTorch's")
    page.wrong = wrong  # type: ignore[attr-defined]
    return page


def closed(page: Page) -> None:
    assert page.wrong == []  # type: ignore[attr-defined]
    page.close()


@pytest.fixture(scope="module")
def shared_page(browser: Browser, classes: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = opened(browser, classes.html, tmp_path_factory.mktemp("page"))
    yield page
    closed(page)


@pytest.fixture
def page(shared_page: Page) -> Page:
    """With one of its rows in the form, unchanged."""
    shared_page.locator("#row").select_option("4")
    shared_page.get_by_role("button", name="Undo all changes").click()
    return shared_page


def answers(page: Page) -> list[float]:
    """The chances beside the bars."""
    told = page.locator("#bars .value").all_inner_texts()
    return [float(text.removesuffix(" %")) / 100 for text in told]


def form_row(page: Page) -> list[Any]:
    row: list[Any] = page.evaluate("state.row")
    return row


def torch_answers(model: Model, rows: list[list[Any]]) -> np.ndarray[Any, Any]:
    """PyTorch's answers for raw rows, encoded by the trainer's own code."""
    columns = []
    for values, record in zip(zip(*rows, strict=True), model.data.preprocessing.columns, strict=True):
        if record["kind"] == "number":
            array = np.array([np.nan if value is None else value for value in values], np.float64)
            columns.append(Column(name=record["name"], kind=ColumnKind.REAL, values=array))
        else:
            columns.append(Column(name=record["name"], kind=ColumnKind.TEXT, values=np.array(values, object)))
    return model.ask(encode_table(model.data.preprocessing, columns, np.arange(len(rows)), ""))


def odd_rows(model: Model) -> list[list[Any]]:
    """All missing, all extreme, all unknown."""
    kinds = [record["kind"] for record in model.data.preprocessing.columns]
    return [
        [None for _ in kinds],
        [1e6 if kind == "number" else "Ulm, Neu" for kind in kinds],
        [-3 if kind == "number" else "never seen" for kind in kinds],
    ]


# What the page holds


def test_the_rows_are_the_sources_own(classes: Model, held: Any) -> None:
    ids, values = held["rows"]["ids"], held["rows"]["values"]
    assert ids == classes.data.test.rows.tolist()
    raw = [[None if value is None else value for value in row] for row in values]
    np.testing.assert_allclose(torch_answers(classes, raw), classes.told(classes.data.test).outputs, atol=1e-6)
    city = [record["name"] for record in classes.data.preprocessing.columns].index("city")
    assert {row[city] for row in values} <= {"Köln", "<i>Bonn", "Ulm, Neu", "Atlantis", None}


def test_the_confusion_matrix_is_scikit_learns(classes: Model, held: Any) -> None:
    told = classes.told(classes.data.test)
    expected = confusion_matrix(told.truth, told.outputs.argmax(axis=1))
    np.testing.assert_array_equal(held["confusion"], expected)


def test_the_most_wrong_rows_are_those_with_the_highest_log_loss(classes: Model, held: Any) -> None:
    told = classes.told(classes.data.test)
    losses = [
        log_loss([truth], [output], labels=[0, 1, 2]) for truth, output in zip(told.truth, told.outputs, strict=True)
    ]
    wrong = [row for row in np.argsort(losses)[::-1].tolist() if told.outputs[row].argmax() != told.truth[row]]
    assert held["worst"] == wrong[:20]


def test_the_columns_come_by_their_importance(held: Any) -> None:
    values = [held["columns"][index]["importance"][0] for index in held["order"]]
    assert values == sorted(values, reverse=True)
    assert sorted(held["order"]) == list(range(5))


def test_the_dependences_are_means_over_rows_of_the_split(classes: Model, held: Any) -> None:
    """The test split has fewer rows than the mean takes: all are in it."""
    for index, told in held["dependences"].items():
        found = dependence(
            classes.ask, int(index), told["values"], classes.data.test.inputs, classes.data.preprocessing, 0
        )
        np.testing.assert_allclose(np.transpose(told["mean"]), found.mean, atol=1e-3)


def test_nothing_in_the_data_can_break_out_of_the_page(classes: Model) -> None:
    html = classes.html
    assert "</script><b>" not in html
    assert "shop & <co>" not in html
    assert "<i>Bonn" not in html


def test_no_address_outside_is_in_the_page(classes: Model) -> None:
    addresses = set(re.findall(r"\w+://[^\s\"'<)]+", classes.html))
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_the_same_seed_gives_the_same_page(classes: Model) -> None:
    assert classes.page() == classes.html


def test_images_have_another_page(classes: Model) -> None:
    with pytest.raises(BadInputError, match="shows networks for tables"):
        classes.page(dataset=digits())


def test_a_page_of_many_weights_rows_and_columns_stays_under_10_mb(tmp_path: Path) -> None:
    """Three million weights in half precision leave little room: fewer rows and dependences are in it."""
    random = np.random.default_rng(0)
    rows, columns = 4000, 80
    inputs = random.normal(size=(rows, columns))
    np.savez(tmp_path / "wide.npz", x=inputs, y=random.integers(0, 20, rows))
    model = Model.drawn(tmp_path / "wide.npz", "y", settings_of(neurons=(1700, 1700)))
    outputs = random.dirichlet(np.ones(20), len(model.data.test))

    html = model.page(ask=model.idle, outputs=outputs, truth=model.data.test.targets)

    assert 6_000_000 < len(html.encode()) < 10_000_000
    held = data_of(html)
    assert held["network"]["weights"]["bytes"] == 2
    assert len(held["columns"]) == 80
    assert 0 < len(held["rows"]["ids"]) <= 500


# What the page computes


@pytest.mark.parametrize("batch_norm", [True, False], ids=["normed", "plain"])
def test_the_page_gives_pytorchs_numbers(browser: Browser, table: Path, tmp_path: Path, batch_norm: bool) -> None:
    """Every activation, on all rows of the test split and on odd ones."""
    for number, activation in enumerate(Activation):
        target = ("bought", "price")[number % 2]
        neurons = ((), (6,), (8, 5, 3))[number % 3] if number else (8, 5)
        model = Model.drawn(table, target, settings_of(neurons=neurons, activation=activation, batch_norm=batch_norm))
        page = opened(browser, model.page(ask=model.idle), tmp_path)
        rows = [*page.evaluate("data.rows.values"), *odd_rows(model)]

        ours = np.array(page.evaluate("rows => rows.map((row) => answersTo(model, row))", rows))

        theirs = torch_answers(model, rows).reshape(len(rows), -1)
        unit = model.data.preprocessing.target_std
        np.testing.assert_allclose(ours / unit, theirs / unit, rtol=TOLERANCE, atol=TOLERANCE, err_msg=activation)
        closed(page)


def test_a_changed_field_changes_the_answer_as_pytorch_says(page: Page, classes: Model) -> None:
    names = [record["name"] for record in classes.data.preprocessing.columns]
    before = answers(page)
    for name, fill in (("age", "33"), ("income", "120000.5"), ("age", ""), ("</script><b>", "-1.5")):
        page.get_by_label(name, exact=True).fill(fill)
        row = form_row(page)
        assert row[names.index(name)] == (float(fill) if fill else None)
        np.testing.assert_allclose(answers(page), torch_answers(classes, [row])[0], atol=6e-4)
    page.get_by_label("city", exact=True).select_option("<i>Bonn")
    page.get_by_label("member", exact=True).select_option("(missing)")
    row = form_row(page)
    assert (row[names.index("city")], row[names.index("member")]) == ("<i>Bonn", None)
    np.testing.assert_allclose(answers(page), torch_answers(classes, [row])[0], atol=6e-4)

    page.get_by_role("button", name="Undo all changes").click()
    assert answers(page) == before
    expect(page.locator(".field.changed")).to_have_count(0)


def test_one_change_can_be_taken_back_and_strange_values_are_remarked_on(page: Page) -> None:
    age = page.get_by_label("age", exact=True)
    was, before = age.input_value(), answers(page)
    field = page.locator(".field", has=age)

    age.fill("1000")
    expect(field.locator(".note")).to_contain_text("The network has learnt from 18 to")
    expect(field).to_have_class(re.compile("changed"))
    field.get_by_role("button").click()

    assert (age.input_value(), answers(page)) == (was, before)
    expect(field.locator(".note")).to_be_empty()


def test_a_value_that_nobody_learnt_is_shown_as_it_is(page: Page, held: Any) -> None:
    row = next(index for index, values in enumerate(held["rows"]["values"]) if "Atlantis" in values)
    page.locator("#row").select_option(str(row))

    city = page.get_by_label("city", exact=True)
    expect(city.locator("option:checked")).to_have_text("Atlantis")
    expect(page.locator(".field", has=city).locator(".note")).to_have_text("The network has never seen this value.")


# What the page shows


def test_the_keyboard_alone_moves_a_slider_a_row_and_a_column(page: Page, held: Any) -> None:
    slider = page.get_by_label("income, slider", exact=True)
    before, row = float(slider.input_value()), page.locator("#row").input_value()
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert float(slider.input_value()) > before
    assert form_row(page)[1] == float(slider.input_value())

    page.get_by_role("button", name="next row").focus()
    page.keyboard.press("Enter")
    assert page.locator("#row").input_value() == str(int(row) + 1)
    assert form_row(page) == held["rows"]["values"][int(row) + 1]

    second = page.locator("#importances button").nth(1)
    second.focus()
    page.keyboard.press("Space")
    expect(second).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#dependence-title")).to_have_text(held["columns"][held["order"][1]]["name"])


def test_the_curve_of_the_row_goes_through_its_answers(page: Page, classes: Model) -> None:
    """Its points, read off the picture by the axis, against PyTorch."""
    page.locator("#importances button", has_text="income").click()
    shown = page.evaluate("valuesOf(1)")
    rows = [[*form_row(page)[:1], value, *form_row(page)[2:]] for value in shown]
    answer = page.evaluate("state.answer")
    expected = torch_answers(classes, rows)[:, answer]

    path = page.locator("#dependence path.mine").get_attribute("d") or ""
    heights = np.array([float(point.split()[1]) for point in re.split("[ML]", path)[1:]])
    texts = page.locator("#dependence text[text-anchor=end]")
    ticks = [
        (float((texts.nth(i).text_content() or "").split()[0]) / 100, float(texts.nth(i).get_attribute("y") or 0) - 4)
        for i in range(texts.count())
    ]
    (low, bottom), (high, top) = ticks[0], ticks[-1]
    read = low + (heights - bottom) / (top - bottom) * (high - low)
    np.testing.assert_allclose(read, expected, atol=2e-3)


def test_a_cell_of_the_confusion_matrix_opens_its_rows(page: Page, held: Any) -> None:
    truths, given = np.array(held["rows"]["truth"]), np.array(held["rows"]["answer"])
    truth, answer = next((t, a) for t in range(3) for a in range(3) if t != a and held["confusion"][t][a])
    cell = page.locator(".confusion tbody tr").nth(truth).locator("td").nth(answer).get_by_role("button")
    expect(cell).to_have_text(str(held["confusion"][truth][answer]))

    cell.click()
    listed = page.locator("#rows button").evaluate_all("all => all.map((each) => Number(each.dataset.row))")
    assert listed == np.flatnonzero((truths == truth) & (given == answer)).tolist()

    page.locator("#rows button").first.click()
    assert form_row(page) == held["rows"]["values"][listed[0]]
    expect(page.locator("#row")).to_be_focused()


def test_a_regression_shows_its_value_and_the_rows_that_are_furthest_off(
    browser: Browser, numbers: Model, tmp_path: Path
) -> None:
    page = opened(browser, numbers.html, tmp_path)
    told = numbers.told(numbers.data.test)
    furthest = np.argsort(-np.abs(told.outputs - told.truth))[:20].tolist()
    listed = page.locator("#rows button").evaluate_all("all => all.map((each) => Number(each.dataset.row))")
    assert listed == furthest

    page.locator("#rows button").first.click()
    shown = float(page.locator("#verdict strong").inner_text())
    assert shown == pytest.approx(told.outputs[furthest[0]], abs=numbers.data.preprocessing.target_std / 100)
    page.locator("#overview circle").last.click()
    assert page.evaluate("state.index") == len(told.truth) - 1
    closed(page)


@pytest.mark.parametrize("target", ["bought", "price"])
def test_a_phone_needs_no_scrolling_sideways(
    browser: Browser, classes: Model, numbers: Model, tmp_path: Path, target: str
) -> None:
    model = classes if target == "bought" else numbers
    page = opened(browser, model.html, tmp_path, viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    closed(page)


def test_the_dark_has_colours_of_its_own(browser: Browser, classes: Model, tmp_path: Path) -> None:
    """Letters stand out from their background by 4.5 to 1 at least in both (WCAG 2.2, 1.4.3)."""
    papers = []
    for scheme in ("light", "dark"):
        page = opened(browser, classes.html, tmp_path, color_scheme=scheme)
        ink, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.documentElement).backgroundColor]"
        )
        papers.append(paper)
        bright, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5
        closed(page)
    assert papers[0] != papers[1]


def luminance(colour: str) -> float:
    channels = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
