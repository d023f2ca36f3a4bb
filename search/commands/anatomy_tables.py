"""How a network's layers are shown: as JSON, and as tables with a few words for who sees such for the first time."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from search.commands import tables
from search.commands.output import say
from search.commands.output import show as show_table
from search.commands.words import network, plain, setting

if TYPE_CHECKING:
    from trainer.anatomy import Layer

Document = dict[str, Any]

_UNITS = ((10**15, "P"), (10**12, "T"), (10**9, "G"), (10**6, "M"))
_BYTES = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def layer_document(layer: Layer) -> Document:
    """One entry of ``layers``."""
    window, sees = layer.window, layer.sees
    return {
        "name": layer.name,
        "kind": layer.kind.value,
        "input": layer.input,
        "output": layer.output,
        "filter": window.size if window else None,
        "stride": window.stride if window else None,
        "padding": window.padding if window else None,
        "receptive_field": sees.size if sees else None,
        "receptive_jump": sees.jump if sees else None,
        "receptive_offset": sees.offset if sees else None,
        "feature_maps": layer.feature_maps,
        "weights": layer.weights,
        "dense_weights_per_neuron": layer.dense_weights_per_neuron,
        "dense_weights": layer.dense_weights,
        "shared_weights_per_channel": layer.shared_weights_per_channel,
        "shared_weights_per_filter": layer.shared_weights_per_filter,
        "multiply_adds": layer.multiply_adds,
        "activation_memory": layer.activation_memory,
    }


def show(document: Document) -> None:
    """All of it on stdout."""
    trial = "" if document["trial"] is None else f", trial {document['trial']}"
    outputs = f"{document['outputs']} output" + ("s" if document["outputs"] != 1 else "")
    say(f"{document['study']}{trial}: {network(document['params'])}, for {shape(document['input'])}, {outputs}")
    for line in _taken(document["taken"]):
        say(line)
    for repair in document["repairs"]:
        say(_filled(f"No image would pass {repair}."))
    layers = document["layers"]
    say()
    _show_shapes(layers)
    say()
    _show_costs(layers)
    say()
    for sentence in _explained(document):
        say(_filled(sentence))


def shape(numbers: Sequence[int]) -> str:
    """``200x200x3``: height, width, and channels or maps; of a row or of dense neurons their number."""
    channels, *sides = numbers
    return "x".join(map(str, (*sides, channels)))


def count(number: int | None) -> str:
    """A whole number in at most nine characters: exact under ten million, else in M, G, T; a dash for none."""
    if not number:
        return "-"
    if number < 10**7:
        return f"{number:,}"
    size, unit = next(((size, unit) for size, unit in _UNITS if number >= size))
    return f"{number / size:,.3g} {unit}" if number < 1000 * size else f"{number / size:,.0f} {unit}"


def bytes_text(number: int) -> str:
    """Bytes in short."""
    return (
        f"{number} B" if number < 1000 else f"{number / 1e3:.3g} kB" if number < 999_500 else f"{number / 1e6:,.3g} MB"
    )


def _show_shapes(layers: Sequence[Document]) -> None:
    table = tables.new_table("layer", "input", "output", "maps", "filter", "stride", "padding", "one neuron sees")
    for layer in layers:
        size, sees = layer["filter"], layer["receptive_field"]
        whole = "all of it" if layer["kind"] == "dense" else "-"
        table.add_row(
            layer["name"],
            shape(layer["input"]),
            shape(layer["output"]),
            _or_dash(layer["feature_maps"]),
            f"{size}x{size}" if size else "-",
            _or_dash(layer["stride"]),
            _or_dash(layer["padding"]),
            f"{sees}x{sees}" if sees else whole,
        )
    show_table(table)


def _show_costs(layers: Sequence[Document]) -> None:
    table = tables.new_table("layer", "weights", "a filter's", "seeing all", "if all did", "multiply-adds", "memory")
    for layer in layers:
        table.add_row(
            layer["name"],
            count(layer["weights"]),
            count(layer["shared_weights_per_filter"]),
            count(layer["dense_weights_per_neuron"]),
            count(layer["dense_weights"]),
            count(layer["multiply_adds"]),
            bytes_text(layer["activation_memory"]),
        )
    show_table(table)


def _explained(document: Document) -> Iterator[str]:
    """The figures of the first layer of a kind in words, and the totals."""
    layers = document["layers"]
    convolution = next((layer for layer in layers if layer["kind"] == "conv"), None)
    if convolution is not None:
        yield _of_a_convolution(convolution)
        yield (
            "'one neuron sees' is its receptive field: the square of the image, in pixels, that has a say in its "
            "value. It grows from layer to layer."
        )
    dense = next(layer for layer in layers if layer["kind"] == "dense")
    yield (
        f"{dense['name']}: each of its {dense['output'][0]:,} neurons has a weight for each of the "
        f"{dense['input'][0]:,} numbers before it."
    )
    yield (
        f"In all {document['weights']:,} weights, and {count(document['multiply_adds'])} products for one row. "
        "'seeing all': the weights of one neuron, 'if all did': those of the layer, if each neuron saw all of the "
        "layer's input. 'memory': the layer's output for one row."
    )
    rows = document["params"]["batch_size"]
    yield f"To train it in batches of {rows} takes about {bytes_text(document['training_memory'])}, beside the data."


def _of_a_convolution(layer: Document) -> str:
    size, channels = layer["filter"], layer["input"][0]
    height, width = layer["output"][1:]
    bias = ", and a bias" if layer["weights"] > layer["feature_maps"] * layer["shared_weights_per_filter"] else ""
    each = f" for each of {channels} channels, {layer['shared_weights_per_filter']:,} in all" if channels > 1 else ""
    return (
        f"{layer['name']}: a filter of {size}x{size} has {layer['shared_weights_per_channel']:,} weights{each}{bias}. "
        f"The {height * width:,} neurons of its map share them. One neuron that saw all of the "
        f"{shape(layer['input'])} input would need {layer['dense_weights_per_neuron']:,} of its own."
    )


def _taken(taken: Sequence[Document]) -> Iterator[str]:
    """What the file leaves open, as far as the network's shape hangs on it; of all layers the same is taken."""
    said = {}
    for each in taken:
        stem = re.sub(r"_\d+$", "", each["key"])
        if stem not in _NO_SHAPE:
            said[stem] = f"{plain(stem)} {setting(each['value'])} (of {_choices(each['of'])})"
    if said:
        yield _filled(
            f"Left open by the file, and taken here: {', '.join(said.values())}. --set KEY=VALUE takes another."
        )


_NO_SHAPE = ("learning_rate", "weight_decay", "momentum", "dropout", "schedule", "optimizer", "activation")
"""Settings that change nothing about a network's layers."""


def _choices(dimension: Any) -> str:
    if isinstance(dimension, dict):
        return f"{setting(dimension['low'])} to {setting(dimension['high'])}"
    return ", ".join(setting(value) for value in dimension)


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def _filled(text: str) -> str:
    return textwrap.fill(plain(text), tables.WIDTH, break_on_hyphens=False)
