from pathlib import Path
from typing import Any

import pytest

from search.commands.describing import input_shape
from tests.search.commands.shelf import PARAMS, Call, Shelf

IMAGES = """\
name: pictures
data: {source: on-another-machine.npz}
model: cnn
space: {conv_layers: 1, filters: 16, filter_size: 5, padding: same, stride: 1, pool: none, batch_norm: false}
"""

TRAINED = {key: value for key, value in PARAMS.items() if key != "momentum"}
"""What a network trained with adam has of them."""


@pytest.fixture
def images(folder: Path) -> str:
    (folder / "images.yaml").write_text(IMAGES)
    return "images.yaml"


def test_a_filter_needs_25_weights_a_channel_where_a_dense_neuron_needs_120_000(images: str, call: Call) -> None:
    document = call("describe", images, "--input", "200x200x3", "--json").document
    assert document["layers"][0] == {
        "name": "conv1",
        "kind": "conv",
        "input": [3, 200, 200],
        "output": [16, 200, 200],
        "filter": 5,
        "stride": 1,
        "padding": 2,
        "receptive_field": 5,
        "receptive_jump": 1,
        "receptive_offset": -2,
        "feature_maps": 16,
        "weights": 1216,
        "dense_weights_per_neuron": 120_000,
        "dense_weights": 16 * 200 * 200 * 120_001,
        "shared_weights_per_channel": 25,
        "shared_weights_per_filter": 75,
        "multiply_adds": 16 * 200 * 200 * 75,
        "activation_memory": 2_560_000,
    }
    assert document["weights"] == sum(layer["weights"] for layer in document["layers"])
    text = call("describe", images, "--input", "200x200x3").out
    assert "25 weights for each of 3 channels, 75 in all, and a\nbias" in text and "120,000 of its own" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_file_is_described_with_the_shape_of_its_data(folder: Path, call: Call) -> None:
    (folder / "s.yaml").write_text("name: s\ndata: {source: digits}\nspace: {layers: 1, neurons: {low: 4, high: 8}}\n")
    document = call("describe", "s.yaml", "--json", "--set", "batch_norm=false").document
    assert (document["input"], document["outputs"], document["trial"]) == ([1, 8, 8], 10, None)
    assert [(layer["name"], layer["input"], layer["output"]) for layer in document["layers"]] == [
        ("dense1", [64], [6]),
        ("output", [6], [10]),
    ]
    assert {"key": "neurons_1", "value": 6, "of": {"low": 4, "high": 8}} in document["taken"]
    assert "neurons 6 (of 4 to 8)" in call("describe", "s.yaml").out


def test_settings_that_no_image_passes_are_explained(images: str, call: Call) -> None:
    command = ("describe", images, "--input", "15x15", "--set", "conv_layers=4", "--set", "padding=valid")
    why = "conv 4: the map is 3x3, the filter 5x5; it is trained with a filter of 3x3"
    assert call(*command, "--json").document["repairs"] == [why]
    assert f"No image would pass {why}." in call(*command).out.replace("\n", " ")


def test_a_studys_best_trial_is_described_or_the_one_that_is_named(shelf: Shelf, call: Call) -> None:
    shelf.finished()
    document = call("describe", "digits", "--json").document
    assert (document["study"], document["trial"], document["params"]) == ("digits", 1, TRAINED)
    assert [layer["output"] for layer in document["layers"]] == [[128], [128], [64], [64], [10]]
    assert document["taken"] == []
    assert call("describe", "digits", "--trial", "2", "--json").document["trial"] == 2
    changed = call("describe", "digits", "--set", "neurons_1=5", "--json").document["params"]
    assert changed == {**TRAINED, "neurons_1": 5}
    assert call("describe", "digits").out.startswith("digits, trial 1: mlp 128-64, for 8x8x1, 10 outputs\n")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("nowhere.yaml",), 2, "no such file"),
        (("nosuchstudy",), 4, "nosuchstudy"),
        (("digits", "--trial", "7"), 2, "its trials are 0 to 2"),
        (("images.yaml", "--trial", "1"), 2, "A file has no trials yet"),
        (("images.yaml",), 2, "on-another-machine.npz"),
        (("images.yaml", "--input", "13"), 2, "a cnn needs images"),
        (("images.yaml", "--input", "8x8x0"), 2, "must be HEIGHTxWIDTHxCHANNELS"),
        (("images.yaml", "--input", "8x8", "--set", "neurons=x"), 2, "whole number"),
        (("images.yaml", "--outputs", "3"), 2, "--outputs goes with --input"),
    ],
)
def test_what_can_not_be_described_is_said_in_a_line(
    images: str, shelf: Shelf, call: Call, arguments: tuple[str, ...], status: int, said: str
) -> None:
    shelf.finished()
    ended = call("describe", *arguments)
    assert (ended.status, ended.out) == (status, "")
    assert said in ended.err and "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("text", "shape"), [("200x100x3", (3, 200, 100)), ("28x28", (1, 28, 28)), ("13", (13,)), ("1x1x1", (1, 1, 1))]
)
def test_a_shape_is_typed_as_people_say_it(text: str, shape: Any) -> None:
    assert input_shape(text) == shape
