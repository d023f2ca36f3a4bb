"""The champion as MLflow keeps it: raw rows in, answers out, in a process that has none of this code."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurosweep.errors import BadInputError, NeurosweepError, UnreachableError
from storage.publisher import PublishedModel, Publisher, save_champion
from storage.store import Store
from tests import small_study
from tests.mlflow_server import free_port

ROWS = [
    {"length": 9, "colour": "red"},
    {"length": None, "colour": "blue"},
    {"length": "12.5", "colour": "green"},
    {"length": math.inf, "colour": None},
]
# Worked out by hand: (length - 10) / 2, or that of 11 where it is missing; whether it is missing; blue; red.
ENCODED = [[-0.5, 0, 0, 1], [0.5, 1, 1, 0], [1.25, 0, 0, 0], [0.5, 1, 0, 0]]

IMAGES = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)  # rows, height, width, channels

SCRIPT = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("neurosweep", "search", "storage", "trainer"):
            raise ImportError(name + " is not there")

sys.meta_path.insert(0, Blocked())
import mlflow, numpy, pandas

where, tracking = sys.argv[1:]
table = pandas.DataFrame(json.loads(open(where + "/rows.json").read()))
images = numpy.load(where + "/images.npy", allow_pickle=False)
mlflow.set_tracking_uri(tracking)
answers = {
    "table": mlflow.pyfunc.load_model("models:/raw@champion").predict(table),
    "image": mlflow.pyfunc.load_model(where + "/image").predict(images),
    "regression": mlflow.pyfunc.load_model(where + "/regression").predict(table),
}
print(json.dumps({name: answer.to_dict("records") for name, answer in answers.items()}))
"""


def softmax(outputs: torch.Tensor) -> list[list[float]]:
    exponentials = outputs.detach().double().exp()
    return [list(row / row.sum()) for row in exponentials.numpy()]


def write_folder(folder: Path, preprocessing: dict[str, Any], example: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "preprocessing.json").write_text(json.dumps(small_study.PREPROCESSING | preprocessing))
    if isinstance(example, np.ndarray):
        np.save(folder / "example.npy", example)
    else:
        (folder / "example.json").write_text(json.dumps(example))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Networks by name; their programs lie beside the key ``folder``."""
    folder = tmp_path_factory.mktemp("networks")
    for name in ("table", "image", "regression"):
        (folder / name).mkdir()
    export = small_study.export_network
    return {
        "folder": folder,
        "table": export(folder / "table" / "network.pt2", inputs=4, outputs=2),
        "image": export(folder / "image" / "network.pt2", inputs=36, outputs=3, shape=(3, 3, 4)),
        "regression": export(folder / "regression" / "network.pt2", inputs=4, outputs=1),
    }


@pytest.fixture(scope="module")
def answers(
    networks: dict[str, Any], file_tracking: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """What a process without this code answers: the table's model from the registry, the others from files."""
    folder: Path = networks["folder"]
    home = tmp_path_factory.mktemp("home")
    store = Store.open(f"sqlite:///{home / 'neurosweep.db'}")
    study = small_study.whole_study(store, "raw")
    champion = home / "studies" / study.uid / "champion"
    small_study.write_champion(champion, folder / "table" / "network.pt2")
    assert Publisher(store, file_tracking, home).publish_due().reason is None
    store.close()

    image = {"kind": "image", "columns": [], "shape": [3, 3, 4], "channels_last": True, "classes": [3, 5, 8]}
    write_folder(folder / "image", image, IMAGES)
    regression = {"task": "regression", "classes": [], "target_mean": 100.0, "target_std": 20.0}
    write_folder(folder / "regression", regression, [{"length": 1.5, "colour": "red"}])
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("image", "regression"):
        save_champion(folder / name, elsewhere / name)
    (elsewhere / "rows.json").write_text(json.dumps(ROWS))
    np.save(elsewhere / "images.npy", IMAGES)
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT, str(elsewhere), file_tracking],
        cwd=elsewhere,
        env=os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert not [file for file in [*home.rglob("*"), *elsewhere.rglob("*")] if file.suffix in (".pkl", ".pickle")]
    result: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return result


def test_raw_rows_of_a_table_are_classified_without_this_code(
    networks: dict[str, Any], answers: dict[str, list[dict[str, Any]]]
) -> None:
    expected = softmax(networks["table"](torch.tensor(ENCODED, dtype=torch.float32)))
    for answer, (no, yes) in zip(answers["table"], expected, strict=True):
        assert answer["probability_no"] == pytest.approx(no, abs=1e-6)
        assert answer["probability_yes"] == pytest.approx(yes, abs=1e-6)
        assert answer["prediction"] == ("yes" if yes > no else "no")


def test_raw_images_are_classified_as_they_come(
    networks: dict[str, Any], answers: dict[str, list[dict[str, Any]]]
) -> None:
    pixels = torch.from_numpy(np.moveaxis(IMAGES, 3, 1).astype(np.float32))
    for answer, chances in zip(answers["image"], softmax(networks["image"](pixels)), strict=True):
        assert [answer[f"probability_{name}"] for name in (3, 5, 8)] == pytest.approx(chances, abs=1e-6)
        assert answer["prediction"] == (3, 5, 8)[int(np.argmax(chances))]


def test_a_regression_answers_in_the_targets_units(
    networks: dict[str, Any], answers: dict[str, list[dict[str, Any]]]
) -> None:
    outputs = networks["regression"](torch.tensor(ENCODED, dtype=torch.float32)).detach().numpy()[:, 0]
    assert [list(answer) for answer in answers["regression"]] == [["prediction"]] * 4
    assert [answer["prediction"] for answer in answers["regression"]] == pytest.approx(outputs * 20 + 100, abs=1e-4)


def test_the_command_line_predicts_from_the_registry_and_from_the_run(
    answers: dict[str, list[dict[str, Any]]], file_tracking: str
) -> None:
    from mlflow import MlflowClient

    version = MlflowClient(file_tracking).get_model_version_by_alias("raw", "champion")
    for model in ("models:/raw@champion", f"runs:/{version.run_id}/champion"):
        for told, known in zip(PublishedModel(model, file_tracking).answers(ROWS), answers["table"], strict=True):
            assert told["prediction"] == known["prediction"]
            assert told["probability_yes"] == pytest.approx(known["probability_yes"], abs=1e-9)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"length": 1}], "colour"),
        ([{"length": "long", "colour": "red"}], "'length' must hold numbers"),
        ([{"length": 1e300, "colour": "red"}], "'length' holds a number too large"),
    ],
)
def test_rows_that_do_not_fit_are_bad_input(
    answers: dict[str, list[dict[str, Any]]], file_tracking: str, rows: list[dict[str, Any]], told: str
) -> None:
    with pytest.raises(BadInputError, match=told):
        PublishedModel("models:/raw@champion", file_tracking).answers(rows)


def test_a_model_that_is_not_there_and_a_server_that_is_not_there_are_told_apart(file_tracking: str) -> None:
    with pytest.raises(NeurosweepError, match="models:/nobody@champion can't be loaded") as missing:
        PublishedModel("models:/nobody@champion", file_tracking).answers(ROWS)
    assert missing.value.exit_status == 1
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UnreachableError, match=f"does not answer at {address}"):
        PublishedModel("models:/raw@champion", address).answers(ROWS)


def test_the_models_card_says_what_goes_in_and_what_comes_out(networks: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "champion"
    small_study.write_champion(folder, networks["folder"] / "table" / "network.pt2")
    save_champion(folder, tmp_path / "saved")
    import mlflow

    model = mlflow.models.Model.load(str(tmp_path / "saved"))
    assert model.signature.inputs.input_names() == ["length", "colour"]
    assert model.signature.outputs.input_names() == ["prediction", "probability_no", "probability_yes"]
    assert model.load_input_example(str(tmp_path / "saved"))["length"].tolist()[0] == 9
    wanted = (tmp_path / "saved" / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in wanted] == ["mlflow", "torch", "numpy", "pandas"]
    assert not [line for line in wanted if "+" in line]


def test_a_network_file_that_was_tampered_with_runs_no_code(networks: dict[str, Any], tmp_path: Path) -> None:
    """`torch.export` would fall back to unpickling the sample inputs."""
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(canary),)

    evil = tmp_path / "evil.pt"
    torch.save({"x": Evil()}, evil)
    folder = tmp_path / "champion"
    small_study.write_champion(folder, networks["folder"] / "table" / "network.pt2")
    original = zipfile.ZipFile(networks["folder"] / "table" / "network.pt2")
    with zipfile.ZipFile(folder / "network.pt2", "w") as changed:
        for entry in original.infolist():
            sample = entry.filename.endswith("sample_inputs/model.pt")
            changed.writestr(entry, evil.read_bytes() if sample else original.read(entry))
    with contextlib.suppress(TypeError):  # torch's warning about it has a wrong format string
        torch.export.load(folder / "network.pt2")
    assert canary.exists(), "torch no longer unpickles by itself: this test has no use any more"
    canary.rmdir()
    save_champion(folder, tmp_path / "saved")
    with pytest.raises(NeurosweepError):
        PublishedModel(str(tmp_path / "saved"), f"sqlite:///{tmp_path / 'mlflow.db'}").answers(ROWS)
    assert not canary.exists()
