"""The page of an image model in a real browser: what it computes, and what it shows."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from sklearn.metrics import confusion_matrix

from search.explain.image_data import encoded, network_data
from tests.browser import open_browser
from tests.search.explain.image_cases import (
    Array,
    cnn,
    digits,
    drawn_weights,
    field_by_autograd,
    image_data,
    page_of,
    torch_results,
)
from tests.trainer.trainer_cases import any_cnn_settings, any_settings, settings_of
from trainer.anatomy import layers_of
from trainer.data.dataset import Dataset
from trainer.settings import Activation, ConvLayer, Family, Padding, Pool, Settings
from trainer.shapes import feature_map_sizes

NETWORK = cnn(
    settings_of(neurons=(20,), activation=Activation.GELU, batch_norm=True),
    ConvLayer(filters=5, filter_size=3, stride=1, pool=Pool.NONE),
    ConvLayer(filters=6, filter_size=3, stride=2, pool=Pool.MAX),
)
SHAPES = st.tuples(st.sampled_from((1, 3)), st.integers(6, 12), st.integers(6, 12))
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@dataclasses.dataclass(frozen=True)
class Written:
    """A page that the program wrote, and what it was made of."""

    file: Path
    weights: dict[str, Array]
    data: Dataset
    outputs: Array

    def torch(self, pixels: Array) -> dict[str, Array]:
        return torch_results(NETWORK, self.weights, self.data, np.array(pixels, np.float32).reshape(1, 8, 8))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    data = digits()
    weights = drawn_weights(NETWORK, data.input_shape, data.outputs)
    html, outputs = page_of(NETWORK, weights, data)
    file = tmp_path_factory.mktemp("page") / "digits.html"
    file.write_text(html, encoding="utf-8")
    return Written(file, weights, data, outputs)


def opened(browser: Browser, file: Path, **options: Any) -> Page:
    """The page in a window of its own, once it has looked at its examples; whatever goes wrong in it fails the test."""
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(INSIDE) else None)
    page.goto(file.as_uri())
    expect(page.locator("#checked")).to_contain_text("differ from PyTorch's", timeout=60_000)
    page.context.wrong = wrong  # type: ignore[attr-defined]
    return page


INSIDE = ("file:", "data:", "blob:")


@pytest.fixture(scope="module")
def shared_page(browser: Browser, written: Written) -> Iterator[Page]:
    page = opened(browser, written.file)
    yield page
    assert page.context.wrong == []  # type: ignore[attr-defined]
    page.close()


@pytest.fixture
def page(shared_page: Page) -> Page:
    shared_page.keyboard.press("Escape")
    shared_page.evaluate("viewer.show(pictureOf(viewer, 3), 3)")
    return shared_page


def pixels_of(page: Page) -> Array:
    return np.array(page.evaluate("Array.from(viewer.pixels)"))


def until(page: Page, condition: str) -> None:
    """Waits for it frame by frame; Playwright's own way would need `eval`, which the page forbids."""
    page.evaluate(
        f"""() => new Promise((done, fail) => {{
            let frames = 0;
            const look = () => {{
                if ({condition}) done();
                else if ((frames += 1) > 1000) fail(new Error("never true: " + {condition!r}));
                else requestAnimationFrame(look);
            }};
            look();
        }})"""
    )


def bars_of(page: Page) -> Array:
    return np.array(page.locator("#bars .bar").evaluate_all("bars => bars.map((bar) => Number(bar.dataset.share))"))


def shares(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def framed(page: Page, selector: str, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the pixels that a frame surrounds."""
    style = page.locator(selector).first.evaluate(
        "({ style: s }) => [s.top, s.height, s.left, s.width].map(parseFloat)"
    )
    top, tall, left, wide = (
        share / 100 * size for share, size in zip(style, (height, height, width, width), strict=True)
    )
    return round(top), round(top + tall) - 1, round(left), round(left + wide) - 1


def point_at(page: Page, layer: str, tile: int, row: int, column: int, rows: int, columns: int) -> None:
    canvas = page.locator(f"#maps-{layer} .map canvas").nth(tile)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + (column + 0.5) * box["width"] / columns, box["y"] + (row + 0.5) * box["height"] / rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=any_cnn_settings | any_settings, shape=SHAPES, outputs=st.integers(1, 4), seed=st.integers(0, 99))
def test_every_layer_gives_torchs_numbers(
    page: Page, chosen: Settings, shape: tuple[int, int, int], outputs: int, seed: int
) -> None:
    assume(
        0 not in {side for size in feature_map_sizes(chosen.convolutions, chosen.padding, *shape[1:]) for side in size}
    )
    rng = np.random.default_rng(seed)
    data = image_data(rng.normal(3, 2, (4, *shape)).astype(np.float32), np.arange(4) % outputs, outputs)
    weights = drawn_weights(chosen, shape, outputs, seed)
    pixels = data.test.inputs[0]
    torchs = torch_results(chosen, weights, data, pixels)
    model = network_data(chosen, weights, data)
    found = page.evaluate(
        """([model, pixels]) => forward(makeNetwork(model), Float32Array.from(pixels))
            .map((result) => [result.sum, result.normed, result.value].map((values) => Array.from(values)))""",
        [model, pixels.ravel().tolist()],
    )
    checked = set()
    for layer, steps in zip(model["layers"], found, strict=True):
        for suffix, step in zip(("", "_norm", "_activation"), steps, strict=True):
            name = layer["name"] + suffix
            if name in torchs:
                np.testing.assert_allclose(step, torchs[name], rtol=1e-5, atol=TOLERANCE)
                checked.add(name)
    assert checked == set(torchs) - {"flatten"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=any_cnn_settings, shape=SHAPES, data=st.data())
def test_the_receptive_field_is_what_the_neuron_depends_on(
    page: Page, chosen: Settings, shape: tuple[int, int, int], data: st.DataObject
) -> None:
    assume(
        0 not in {side for size in feature_map_sizes(chosen.convolutions, chosen.padding, *shape[1:]) for side in size}
    )
    images = image_data(np.ones((2, *shape), np.float32), np.arange(2), 2)
    model = network_data(chosen, drawn_weights(chosen, shape, 2), images)
    maps = [(at, layer) for at, layer in enumerate(model["layers"]) if len(layer["output"]) == 3 and at]
    at, layer = data.draw(st.sampled_from(maps))
    place = [data.draw(st.integers(0, size - 1)) for size in layer["output"]]
    field = page.evaluate(
        "([model, at, place]) => fieldOn(model, at, neuronAt(model.layers[at], place), 0)",
        [model, at, dict(zip(("map", "row", "column"), place, strict=True))],
    )
    found = field["top"], field["bottom"], field["left"], field["right"]
    assert found == field_by_autograd(chosen, shape, layer["name"], *place[1:])

    # What `describe` says of the layer holds for every neuron whose field lies inside of the image.
    sees = next(each.sees for each in layers_of(chosen, shape, 2) if each.name == layer["name"])
    assert sees is not None
    first = [sees.offset + at * sees.jump for at in place[1:]]
    last = [start + sees.size - 1 for start in first]
    if min(first) >= 0 and last[0] < shape[1] and last[1] < shape[2]:
        assert found == (first[0], last[0], first[1], last[1])


def test_half_precision_is_numpys(page: Page) -> None:
    bits = np.arange(0, 2**16, 5, dtype=np.uint16)
    found = page.evaluate("text => Array.from(decoded(text, 2), String)", encoded(bits, "<u2"))
    np.testing.assert_array_equal(np.array(found, np.float64), bits.view(np.float16).astype(np.float64))


def test_the_page_says_how_close_it_is_to_torch(page: Page) -> None:
    assert float(page.locator("#checked").get_attribute("data-difference") or "nan") < TOLERANCE


def test_an_example_is_answered_as_torch_answers_it(page: Page, written: Written) -> None:
    page.locator("#examples button").nth(7).click()
    row = written.data.test.rows.tolist().index(page.evaluate("viewer.data.images.rows[viewer.picture]"))
    np.testing.assert_array_equal(pixels_of(page), written.data.test.inputs[row].ravel())
    np.testing.assert_allclose(bars_of(page), written.outputs[row], atol=TOLERANCE)
    expect(page.locator("#bars .best .label")).to_contain_text(str(written.outputs[row].argmax()))
    expect(page.locator("#says")).to_contain_text(f"It is {written.data.test.targets[row]}.")


def test_what_is_drawn_with_the_mouse_is_answered_as_torch_answers_it(page: Page, written: Written) -> None:
    page.locator("#clear").click()
    until(page, "viewer.pixels.every((pixel) => pixel === 0)")
    box = page.locator("#pad").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.1)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.9, steps=6)
    page.mouse.up()
    until(page, "viewer.pixels[7 * 8 + 4] > 0")
    drawn = pixels_of(page).reshape(8, 8)
    assert (drawn[:, 3:5] > 0).all()  # a stroke down the middle,
    assert (drawn[:, [0, 1, 6, 7]] == 0).all()
    assert 0 < drawn.max() <= 16
    assert len(np.unique(drawn)) > 2  # with grey edges
    np.testing.assert_allclose(bars_of(page), shares(written.torch(drawn)["output"]), atol=TOLERANCE)


def test_the_pad_is_drawn_on_by_keyboard(page: Page) -> None:
    page.locator("#clear").click()
    page.locator("#pad").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    until(page, "viewer.pixels[4 * 8 + 3] > 0")
    page.keyboard.down("Shift")
    page.keyboard.press("ArrowDown")
    page.keyboard.up("Shift")
    until(page, "viewer.pixels[5 * 8 + 3] > 0")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Backspace")
    until(page, "viewer.pixels[4 * 8 + 3] === 0")


def test_a_picture_is_inverted_and_inverted_back(page: Page) -> None:
    page.locator("#random").click()
    before = pixels_of(page)
    page.locator("#invert").click()
    until(page, "viewer.picture === null")
    np.testing.assert_array_equal(pixels_of(page), 16 - before)
    page.locator("#invert").click()
    until(page, f"viewer.pixels[0] === {before[0]}")
    np.testing.assert_array_equal(pixels_of(page), before)


def test_an_image_file_is_brought_to_the_networks_size_and_grey(page: Page) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).resize((320, 320), Image.Resampling.NEAREST).save(file, "PNG")
    page.locator("#file").set_input_files({"name": "it.png", "mimeType": "image/png", "buffer": file.getvalue()})
    expect(page.locator("#pad-status")).to_contain_text("it.png, brought to")
    until(page, "viewer.picture === null")
    grey = np.asarray(Image.fromarray(colours).convert("L")).astype(float) * 16 / 255
    np.testing.assert_allclose(pixels_of(page).reshape(8, 8), grey, atol=0.2)

    page.locator("#file").set_input_files({"name": "no.png", "mimeType": "image/png", "buffer": b"no image"})
    expect(page.locator("#pad-status")).to_contain_text("no.png can't be read")


def test_hovering_lights_up_what_a_neuron_sees_and_spells_its_arithmetic_out(page: Page, written: Written) -> None:
    point_at(page, "conv2", 4, 1, 2, 4, 4)
    expect(page.locator("#neuron-name")).to_have_text("conv2, map 5, row 2, column 3")
    assert framed(page, "#pad-host .field", 8, 8) == field_by_autograd(NETWORK, (1, 8, 8), "conv2", 1, 2)
    assert page.locator("#maps-conv1 .seen").count() == 5  # the same square on each map below
    assert framed(page, "#maps-conv1 .seen", 8, 8) == (1, 3, 3, 5)
    assert framed(page, "#maps-conv2 .cursor", 4, 4) == (1, 1, 2, 2)
    value = written.torch(pixels_of(page))["conv2_activation"].reshape(6, 4, 4)[4, 1, 2]
    told = page.locator("#drawer output").inner_text().replace("\u2212", "-")
    assert float(told.split("=")[-1]) == pytest.approx(value, rel=5e-3, abs=5e-4)


def test_the_parts_of_every_kind_of_sum_add_up_to_torchs_value(page: Page, written: Written) -> None:
    torchs = written.torch(pixels_of(page))
    for at, name in enumerate(("conv1", "conv2", "conv2_pool", "dense1", "output"), start=1):
        index = torchs[name].argmax()
        terms = page.evaluate("([at, index]) => termsOf(viewer.network, viewer.results, at, index)", [at, int(index)])
        if "patch" in terms:
            assert max(terms["patch"]) == pytest.approx(torchs[name][index], abs=TOLERANCE)
            continue
        parts = [part["sum"] for part in terms.get("groups", [])] + [part["product"] for part in terms.get("terms", [])]
        assert parts == sorted(parts, key=abs, reverse=True)
        assert sum(parts) + (terms["bias"] or 0) == pytest.approx(torchs[name][index], abs=TOLERANCE)


def test_a_dense_neuron_marks_its_largest_terms_on_the_maps_below(page: Page, written: Written) -> None:
    point_at(page, "dense1", 0, 0, 3, 2, 16)
    below = written.torch(pixels_of(page))["conv2_pool"]
    products = below * written.weights["dense1.weight"][3]
    expected = np.sort(np.unravel_index(np.argsort(-abs(products))[:8], (6, 2, 2))[0])
    found = page.locator("#maps-conv2_pool .map").evaluate_all(
        "maps => maps.flatMap((map, i) => [...map.querySelectorAll('.seen')].map(() => i))"
    )
    assert found == expected.tolist()


def test_neurons_are_looked_at_by_keyboard(page: Page) -> None:
    page.locator("#maps-conv1").focus()
    for key in ("ArrowRight", "ArrowDown", "PageDown"):
        page.keyboard.press(key)
    name = page.locator("#neuron-name")
    expect(name).to_have_text("conv1, map 2, row 2, column 2")
    expect(page.locator("#spoken")).to_contain_text("conv1, map 2, row 2, column 2: ")
    page.keyboard.press("Enter")
    expect(page.locator("#drawer")).to_contain_text("Held")
    page.keyboard.press("f")
    expect(page.locator("#filter-number")).to_have_value("1")
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()


def test_a_held_neuron_stays_while_the_mouse_goes_on(page: Page) -> None:
    point_at(page, "conv1", 0, 2, 2, 8, 8)
    page.mouse.down()
    page.mouse.up()
    point_at(page, "conv1", 1, 5, 5, 8, 8)
    expect(page.locator("#neuron-name")).to_have_text("conv1, map 1, row 3, column 3")


def test_a_click_on_a_filter_shows_where_it_fires(page: Page, written: Written) -> None:
    fires = written.torch(pixels_of(page))["conv2_activation"].reshape(6, 4, 4)
    number, row, column = np.unravel_index(fires.argmax(), fires.shape)
    page.locator("#maps-conv2 .filter").nth(int(number)).click()
    expect(page.locator("#filter-layer")).to_have_value("2")
    expect(page.locator("#filter-number")).to_have_value(str(number))
    page.locator("#fire-places button").first.click()
    expect(page.locator("#neuron-name")).to_have_text(f"conv2, map {number + 1}, row {row + 1}, column {column + 1}")
    assert framed(page, "#fires .place", 8, 8) == field_by_autograd(NETWORK, (1, 8, 8), "conv2", int(row), int(column))
    weights = written.weights["conv1.weight"][0]
    page.locator("#filter-layer").select_option("1")
    told = page.locator("#filter-weights .numbers span").all_inner_texts()
    numbers = [float(text.replace("\u2212", "-")) for text in told]
    np.testing.assert_allclose(numbers, weights.ravel(), atol=0.006)


def test_the_filter_steps_over_the_padded_map_by_its_stride(page: Page) -> None:
    page.locator("#filter-layer").select_option("2")
    page.locator("#step").focus()
    page.keyboard.press("Home")
    expect(page.locator("#step-words")).to_contain_text("rows 0 to 2, columns 0 to 2")
    expect(page.locator("#step-words")).to_contain_text("zero-padding")
    assert framed(page, "#step-window", 10, 10) == (0, 2, 0, 2)
    page.keyboard.press("ArrowRight")
    assert framed(page, "#step-window", 10, 10) == (0, 2, 2, 4)
    for _ in range(4):
        page.locator("#step-next").click()
    page.locator("#step-back").click()
    assert framed(page, "#step-window", 10, 10) == (2, 4, 0, 2)
    expect(page.locator("#step-words")).to_contain_text("Step 5 of 16")
    expect(page.locator("#neuron-name")).to_have_text("conv2, map 1, row 2, column 1")


def test_the_surest_mistakes_are_shown_in_order(page: Page, written: Written) -> None:
    truth, said, sure = written.data.test.targets, written.outputs.argmax(axis=1), written.outputs.max(axis=1)
    wrong = sorted(np.flatnonzero(truth != said), key=lambda row: -sure[row])
    told = page.locator("#mistakes button span").all_inner_texts()
    assert [text[:5] for text in told] == [f"{truth[row]} \u2192 {said[row]}" for row in wrong[: len(told)]]
    page.locator("#mistakes button").nth(1).click()
    np.testing.assert_array_equal(pixels_of(page), written.data.test.inputs[wrong[1]].ravel())


def test_the_cells_of_the_confusion_matrix_open_their_images(page: Page, written: Written) -> None:
    expected = confusion_matrix(written.data.test.targets, written.outputs.argmax(axis=1))
    cells = page.locator("#confusion button")
    counts = np.array(cells.all_inner_texts(), int).reshape(10, 10)
    np.testing.assert_array_equal(counts, expected)
    truth, said = np.unravel_index((expected * (1 - np.eye(10))).argmax(), (10, 10))
    cells.nth(int(truth * 10 + said)).click()
    pictures = page.locator("#behind button")
    assert pictures.count() == expected[truth, said]
    for label in pictures.evaluate_all("buttons => buttons.map((button) => button.ariaLabel)"):
        assert re.search(f"it is {truth}, the network says {said} ", label)


def test_the_dark_has_colours_of_its_own(page: Page) -> None:
    colour = "getComputedStyle(document.body).color + document.querySelector('#maps-conv1 .filter canvas').toDataURL()"
    page.evaluate(f"window.light = {colour}")
    page.emulate_media(color_scheme="dark")
    until(page, f"window.light.split('data:').every((part, i) => part !== ({colour}).split('data:')[i])")
    page.emulate_media(color_scheme="light")
    until(page, f"window.light === {colour}")


def test_it_is_used_by_touch_on_a_phones_width(browser: Browser, written: Written) -> None:
    page = opened(browser, written.file, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.locator("#clear").tap()
    page.locator("#pad").tap()
    until(page, "viewer.pixels[4 * 8 + 4] > 0")
    box = page.locator("#maps-conv2 .map").nth(1).bounding_box()
    assert box is not None
    page.locator("#maps-conv2 .map").nth(1).tap(position={"x": 0.6 * box["width"], "y": 0.6 * box["height"]})
    expect(page.locator("#neuron-name")).to_have_text("conv2, map 2, row 3, column 3")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.context.wrong == []  # type: ignore[attr-defined]
    page.close()


@pytest.mark.parametrize(("classes", "family"), [(3, Family.MLP), (0, Family.MLP), (30, Family.CNN), (0, Family.CNN)])
def test_colour_images_many_classes_and_quantities_have_a_page(
    browser: Browser, tmp_path: Path, classes: int, family: Family
) -> None:
    rng = np.random.default_rng(2)
    targets = np.arange(60) % classes if classes else rng.normal(size=60).astype(np.float32)
    data = image_data(rng.random((60, 3, 7, 9)).astype(np.float32), targets, classes)
    layers = (ConvLayer(filters=3, filter_size=4, stride=1, pool=Pool.AVG),) if family is Family.CNN else ()
    chosen = settings_of(family=family, convolutions=layers, padding=Padding.SAME, neurons=(70,))
    html, outputs = page_of(chosen, drawn_weights(chosen, (3, 7, 9), data.outputs), data)
    file = tmp_path / "page.html"
    file.write_text(html, encoding="utf-8")
    page = opened(browser, file)
    assert float(page.locator("#checked").get_attribute("data-difference") or "nan") < TOLERANCE
    assert page.locator("#bars .bar").count() == min(classes, 12)
    if not classes:
        expect(page.locator("#says")).to_contain_text(f"target = {float(f'{outputs[0]:.4g}'):g}")
    weights = page.locator("#weights button")
    assert weights.count() == (64 if family is Family.MLP else 0)
    if family is Family.MLP:
        weights.first.hover()
        expect(page.locator("#neuron-name")).to_have_text("dense1, neuron 1")
    if classes == 30:
        assert page.locator("#confusion .pairs button").count() == 20
    assert page.context.wrong == []  # type: ignore[attr-defined]
    page.close()
