"""The page of an image model: draw or pick an image and see every layer of the study's best network answer it."""

from __future__ import annotations

import numpy as np

from neurosweep.errors import BadInputError
from search.explain.image_data import (
    FRAME_BYTES,
    IMAGE_BYTES,
    PAGE_BYTES,
    Array,
    answers_data,
    drawing_data,
    network_data,
)
from search.pages.shell import render
from trainer.data.dataset import Dataset, Task
from trainer.settings import Settings

SCRIPTS = (
    "viewer_network.js",
    "viewer_fields.js",
    "viewer_paint.js",
    "viewer_state.js",
    "viewer_pad.js",
    "viewer_pictures.js",
    "viewer_output.js",
    "viewer_maps.js",
    "viewer_terms.js",
    "viewer_drawer.js",
    "viewer_filter.js",
    "viewer_stepper.js",
    "viewer_mistakes.js",
    "viewer_survey.js",
    "viewer.js",
)


def image_page(
    *,
    study: str,
    metric: str,
    settings: Settings,
    weights: dict[str, Array],
    dataset: Dataset,
    split: str,
    outputs: Array,
    truth: Array,
) -> str:
    """One self-contained HTML file, under 10 MB.

    Args:
        study: The study's label.
        metric: What the study's trials are compared by.
        weights: The winner's, under the names of `trainer.networks.build`.
        split: Where the images come from: ``test``, or ``validation`` while the test split is shut.
        outputs: The winner's answers for that split: probabilities of shape (rows, classes), or predictions in the
            target's units of shape (rows,). As `trainer.work.TestResult` has them, like `truth`.
        truth: Class indices, or targets in their units, of shape (rows,).

    Raises:
        BadInputError: The data are no images, or the network has more weights than a page of that size can hold.
    """
    preprocessing = dataset.preprocessing
    if preprocessing.kind != "image":
        raise BadInputError(f"this page shows networks for images, but the study's data are a {preprocessing.kind}")
    network = network_data(settings, weights, dataset)
    room = min(IMAGE_BYTES, PAGE_BYTES - FRAME_BYTES - len(network["weights"]["text"]))
    rows = dataset.test if split == "test" else dataset.validation
    answers = answers_data(dataset, rows, outputs, truth, max(room, 0))
    classification = dataset.task is Task.CLASSIFICATION
    data = {
        "study": study,
        "split": split,
        "classes": [str(name) for name in preprocessing.classes],
        "target": {
            "name": preprocessing.target_name,
            "mean": preprocessing.target_mean,
            "std": preprocessing.target_std,
        },
        "network": network,
        "drawing": drawing_data(dataset.train),
        **answers,
    }
    return render(
        "viewer.html",
        data=data,
        scripts=SCRIPTS,
        study=study,
        metric=metric,
        split=split,
        rows=len(truth),
        wrong=int(np.sum(outputs.argmax(axis=1) != truth)) if classification else None,
        weight_count=network["weight_count"],
        layers=network["layers"],
        convolutions=len(settings.convolutions),
        hidden=len(settings.neurons),
        halved=network["weights"]["bytes"] == 2,
        shown=len(answers["images"]["rows"]),
        channels=preprocessing.shape[0],
        height=preprocessing.shape[1],
        width=preprocessing.shape[2],
    )
