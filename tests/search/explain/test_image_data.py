"""What the page of an image model holds, without a browser."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from neurosweep.errors import BadInputError
from search.explain.image_data import EXAMPLES, PAGE_BYTES, answers_data, drawing_data, encoded, network_data
from search.explain.image_page import image_page
from tests.search.explain.image_cases import cnn, digits, drawn_weights, image_data, page_of
from tests.trainer.trainer_cases import MLP, settings_of
from trainer.settings import ConvLayer, Pool

RNG = np.random.default_rng(0)


def decoded(packed: dict[str, Any]) -> Any:
    return np.frombuffer(base64.b64decode(packed["text"]), f"<f{packed['bytes']}")


def embedded(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    values: dict[str, Any] = json.loads(found[1])
    return values


def test_the_weights_are_kept_to_the_last_bit() -> None:
    settings = cnn(
        settings_of(batch_norm=True, neurons=(5,)), ConvLayer(filters=3, filter_size=3, stride=1, pool=Pool.MAX)
    )
    weights = drawn_weights(settings, (1, 8, 8), 4)
    data = image_data(np.zeros((4, 1, 8, 8), np.uint8), np.arange(4), 4)
    network = network_data(settings, weights, data)
    tape = decoded(network["weights"])
    for layer in network["layers"]:
        for kind in ("weight", "bias"):
            name = f"{layer['name']}.{kind}"
            assert (kind in layer) == (name in weights)
            if name in weights:
                kept = tape[layer[kind] : layer[kind] + weights[name].size]
                np.testing.assert_array_equal(kept, weights[name].ravel())


def test_a_larger_network_is_kept_in_half_precision_and_a_huge_one_is_refused() -> None:
    data = image_data(RNG.integers(0, 256, (300, 1, 100, 100)).astype(np.uint8), np.arange(300) % 3, 3)
    large = settings_of(neurons=(300,))
    html, _ = page_of(large, drawn_weights(large, (1, 100, 100), 3), data)
    assert len(html.encode()) < PAGE_BYTES
    assert embedded(html)["network"]["weights"]["bytes"] == 2
    assert "half precision" in html

    huge = {"dense1.weight": np.zeros((400, 10_000), np.float32)}
    with pytest.raises(BadInputError, match=r"holds at most 3,562,500 weights.*has 4,000,000"):
        network_data(large, huge, data)


def test_images_leave_room_for_the_weights() -> None:
    data = image_data(RNG.integers(0, 256, (2000, 1, 64, 64)).astype(np.uint8), np.arange(2000) % 3, 3)
    settings = settings_of(neurons=(420,))  # 9.2 of the 9.5 MB
    html, _ = page_of(settings, drawn_weights(settings, (1, 64, 64), 3), data)
    assert len(html.encode()) < PAGE_BYTES
    shown = embedded(html)["images"]["rows"]
    assert EXAMPLES < len(shown) < 100


@pytest.mark.parametrize("room", [4_000_000, 10_000, 0])
def test_the_answers_are_those_of_the_whole_split_and_the_images_some_of_it(room: int) -> None:
    data = digits()
    truth = data.test.targets
    outputs = RNG.dirichlet(np.ones(10), len(truth))
    answers = answers_data(data, data.test, outputs, truth, room)

    counts = np.zeros((10, 10), int)
    for true, answer, count in answers["confusion"]:
        counts[true, answer] = count
    np.testing.assert_array_equal(counts, confusion_matrix(truth, outputs.argmax(axis=1)))

    rows = [data.test.rows.tolist().index(row) for row in answers["images"]["rows"]]
    assert len(set(rows)) == len(rows) == min(len(truth), room // len(encoded(np.zeros(64), "|u1")))
    pixels = np.frombuffer(base64.b64decode(answers["images"]["text"]), np.uint8)
    np.testing.assert_array_equal(pixels.reshape(-1, 1, 8, 8), data.test.inputs[rows])
    assert answers["images"]["truth"] == truth[rows].tolist()
    assert answers["images"]["answer"] == outputs[rows].argmax(axis=1).tolist()
    for check in answers["checked"]:
        np.testing.assert_array_equal(check["outputs"], outputs[rows[check["image"]]])


def test_mistakes_come_with_the_surest_first() -> None:
    data = digits()
    truth = data.test.targets
    outputs = RNG.dirichlet(np.ones(10), len(truth))
    answers = answers_data(data, data.test, outputs, truth, 1_000_000)
    wrong = outputs.argmax(axis=1) != truth
    surest = np.sort(outputs.max(axis=1)[wrong])[::-1][:24]
    assert [answers["images"]["certainty"][index] for index in answers["mistakes"]] == surest.tolist()


def test_every_class_is_among_the_examples() -> None:
    data = digits()
    answers = answers_data(data, data.test, RNG.dirichlet(np.ones(10), len(data.test)), data.test.targets, 1_000_000)
    shown = [answers["images"]["truth"][index] for index in answers["examples"]]
    assert np.bincount(shown).tolist() == [4] * 10


@pytest.mark.parametrize(
    ("low", "high", "mostly", "paper"), [(0, 16, 0, 0.0), (0, 250, 250, 255.0), (-1.0, 1.0, 1.0, 1.0), (3, 3, 3, 3.0)]
)
def test_paper_is_what_most_images_have_at_their_border(low: float, high: float, mostly: float, paper: float) -> None:
    kind = np.uint8 if isinstance(low, int) else np.float32
    images = np.full((5, 1, 6, 6), mostly, kind)
    images[:, :, 2:4, 2:4] = low
    images[:, :, 2, 2] = images[:, :, 3, 3] = high
    drawing = drawing_data(image_data(images, np.arange(5) % 2, 2).train)
    assert drawing["paper"] == paper
    assert {drawing["paper"], drawing["ink"]} == {drawing["low"], drawing["high"]}
    assert drawing["low"] < drawing["high"]
    inside = {"top": 2, "bottom": 3, "left": 2, "right": 3}
    assert drawing["box"] == (inside if low < high else {"top": 0, "bottom": 5, "left": 0, "right": 5})


def test_names_cannot_break_out_of_the_page() -> None:
    data = image_data(RNG.integers(0, 9, (6, 1, 4, 4)).astype(np.uint8), np.arange(6) % 2, 2)
    weights = drawn_weights(MLP, (1, 4, 4), 2)
    html = image_page(
        study="</script><b>",
        metric="error",
        settings=MLP,
        weights=weights,
        dataset=data,
        split="test",
        outputs=np.full((6, 2), 0.5),
        truth=data.test.targets,
    )
    assert "<b>" not in html.replace("\\u003cb\\u003e", "")
    assert embedded(html)["study"] == "</script><b>"
    assert embedded(html)["classes"] == ["<0>", "<1>"]


def test_while_the_test_split_is_shut_the_images_are_the_validation_splits() -> None:
    data = digits()
    html = image_page(
        study="digits",
        metric="error",
        settings=MLP,
        weights=drawn_weights(MLP, data.input_shape, 10),
        dataset=data,
        split="validation",
        outputs=RNG.dirichlet(np.ones(10), len(data.validation)),
        truth=data.validation.targets,
    )
    assert sorted(embedded(html)["images"]["rows"]) == data.validation.rows.tolist()
    assert "validation images" in html


def test_a_table_has_no_such_page() -> None:
    from trainer.data.dataset import DataRequest
    from trainer.data.load import load

    iris = load(DataRequest(source="iris"))
    with pytest.raises(BadInputError, match="for images"):
        image_page(
            study="iris",
            metric="error",
            settings=MLP,
            weights={},
            dataset=iris,
            split="test",
            outputs=np.zeros((1, 3)),
            truth=np.zeros(1),
        )
