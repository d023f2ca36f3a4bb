from pathlib import Path

import pytest

from search.study_file import read_study
from tests.search.commands.shelf import Call


def test_init_writes_a_study_file_that_is_valid(folder: Path, call: Call) -> None:
    ended = call("init")
    assert (ended.status, ended.err) == (0, "")
    assert "neurosweep run study.yaml" in ended.out
    assert read_study("study.yaml").data.source == "digits"


def test_init_takes_data_model_and_name(folder: Path, call: Call) -> None:
    assert call("init", "new.yaml", "--data", "iris", "--model", "mlp", "--name", "flowers").status == 0
    spec = read_study("new.yaml")
    assert (spec.name, spec.data.source, spec.model) == ("flowers", "iris", ("mlp",))


def test_init_never_writes_over_a_file_without_force(folder: Path, call: Call) -> None:
    file = folder / "study.yaml"
    file.write_text("mine")
    ended = call("init", "--json")
    assert ended.status == 2
    assert "--force" in ended.document["error"]["message"]
    assert file.read_text() == "mine"
    assert call("init", "--force", "--json").document == {"file": "study.yaml"}
    assert file.read_text() != "mine"


def test_init_writes_nothing_that_would_not_be_valid(folder: Path, call: Call) -> None:
    assert call("init", "--name", "Not A Name").status == 2
    assert call("init", "no/such/folder/study.yaml").status == 2
    assert list(folder.iterdir()) == []


def test_data_typed_here_are_found_from_a_file_in_another_folder(folder: Path, call: Call) -> None:
    (folder / "table.csv").write_text("a,b\n1,2\n")
    (folder / "studies").mkdir()
    call("init", "studies/table.yaml", "--data", "table.csv", "--model", "mlp")
    assert read_study("studies/table.yaml").data.source == str(folder / "table.csv")


def test_validate_prints_every_default_the_shape_and_the_split(folder: Path, call: Call) -> None:
    (folder / "iris.yaml").write_text("name: flowers\ndata: {source: iris}\n")
    document = call("validate", "iris.yaml", "--json").document
    assert document["valid"] is True
    assert document["study"]["search"] == {"sampler": "tpe", "pruner": "asha", "audit": "auto"}
    assert (document["study"]["task"], document["study"]["metric"]) == ("classification", "error")
    # 150 flowers, 50 of each of three kinds, measured in four ways.
    assert document["data"]["rows"] == sum(document["data"]["splits"].values()) == 150
    assert document["data"]["input_shape"] == [4]


def test_what_validate_prints_is_a_study_file_with_the_datas_shape_as_comments(folder: Path, call: Call) -> None:
    (folder / "iris.yaml").write_text("name: flowers\ndata: {source: iris}\n")
    out = call("validate", "iris.yaml").out
    assert max(map(len, out.splitlines())) <= 80
    assert "# input shape   4\n" in out and out.endswith("# iris.yaml would run.\n")
    (folder / "full.yaml").write_text(out)
    assert read_study("full.yaml").budget.trials == 100
    assert read_study("full.yaml").task == "classification"


@pytest.mark.parametrize("command", ["validate", "submit", "run"])
def test_a_mistake_in_the_file_names_its_line_and_the_remedy(command: str, folder: Path, call: Call) -> None:
    (folder / "bad.yaml").write_text("name: bad\ndata: {source: iris}\nbugdet: {trials: 5}\n")
    ended = call(command, "bad.yaml")
    assert (ended.status, ended.out) == (2, "")
    assert "bad.yaml:3" in ended.err and "budget" in ended.err
    assert ended.err.count("\n") <= 2
    error = call(command, "bad.yaml", "--json").document["error"]
    assert error["kind"] == "study_file" and "bad.yaml:3" in error["where"]


@pytest.mark.parametrize("command", ["validate", "submit", "run"])
def test_a_file_that_is_not_there_exits_2(command: str, call: Call) -> None:
    ended = call(command, "nowhere.yaml")
    assert (ended.status, ended.out) == (2, "")
    assert "nowhere.yaml" in ended.err


def test_validate_of_data_that_are_not_there_exits_2(folder: Path, call: Call) -> None:
    (folder / "study.yaml").write_text("name: s\ndata: {source: missing.csv, target: y}\n")
    assert call("validate", "study.yaml").status == 2


def test_submit_queues_without_reading_the_data(folder: Path, call: Call) -> None:
    (folder / "study.yaml").write_text("name: s\ndata: {source: on-another-machine.csv, target: y}\n")
    assert call("submit", "study.yaml").out == "s is in the queue. Follow it with: neurosweep watch s\n"
    document = call("submit", "study.yaml", "--json").document
    assert (document["study"], document["state"], document["trials"]["total"]) == ("s@2", "queued", 100)


ANSWERS = ["yes", "no"] * 20 + ["maybe"]
ROWS = "a,b,who,y\n" + "".join(f"{row},{row % 5},{row % 4},{answer}\n" for row, answer in enumerate(ANSWERS))


@pytest.mark.parametrize(
    ("command", "line", "key"),
    [
        ("validate", "target: z", "data.target"),
        ("validate", "target: y", "data.target"),  # one class has a single row
        ("run", "target: y", "data.target"),
        ("validate", "features: [a, c]", "data.features"),
        ("validate", "group: whom", "data.group"),
        ("validate", "split: {column: fold}", "data.split"),
        ("validate", "source: none.csv", "data.source"),
    ],
)
def test_what_the_data_lack_is_said_with_the_line_that_asks_for_it(
    folder: Path, call: Call, command: str, line: str, key: str
) -> None:
    (folder / "t.csv").write_text(ROWS)
    others = [rest for rest in ("source: t.csv", "target: y") if rest.partition(":")[0] != line.partition(":")[0]]
    (folder / "study.yaml").write_text("\n  ".join(["name: t\n# a comment\ndata:", line, *others]) + "\n")
    ended = call(command, "study.yaml")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.splitlines()[-1].startswith(f"error: study.yaml:4, {key}: {folder}/")
    assert "Traceback" not in ended.err


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.forecast.MEASURED_SECONDS", 0.1)


@pytest.mark.usefixtures("brief")
def test_a_preview_tells_the_networks_and_the_time_before_anything_is_spent(folder: Path, call: Call) -> None:
    space = "{neurons: {low: 4, high: 8}, conv_layers: 3, filters: 2, padding: valid}"
    (folder / "s.yaml").write_text(f"name: s\ndata: {{source: digits}}\nmodel: [mlp, cnn]\nspace: {space}\n")
    document = call("validate", "s.yaml", "--preview", "--json").document
    assert document["valid"] is True and document["data"]["input_shape"] == [1, 8, 8]
    ahead = document["preview"]
    sizes = [ahead["networks"][name]["weights"] for name in ("smallest", "median", "largest")]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]
    assert 0 < ahead["repaired"] < 1 and "conv " in ahead["repairs"][0][0]
    seconds, low, high = ahead["seconds"]
    assert low <= seconds <= high
    hours = [each * ahead["workers"]["count"] / 3600 for each in ahead["seconds"]]
    assert ahead["worker_hours"] == pytest.approx(hours)
    text = call("validate", "s.yaml", "--preview").out
    assert text.startswith("s would run: 100 trials of at most 30 epochs\n")
    for said in ("smallest", "The rule: a filter larger", "more than 10,000 combinations", "Time: about"):
        assert said in text.replace("\n", " ")
    assert max(map(len, text.splitlines())) <= 80
    assert not (folder / ".neurosweep").exists()


@pytest.mark.usefixtures("brief")
def test_a_preview_says_where_a_space_has_fewer_networks_than_the_budget_trials(folder: Path, call: Call) -> None:
    fixed = "layers: 1, learning_rate: 0.01, weight_decay: 0, dropout: 0, batch_norm: true, batch_size: 32"
    space = f"{{{fixed}, optimizer: adam, schedule: cosine, activation: relu, neurons: [4, 8, 16]}}"
    (folder / "s.yaml").write_text(f"name: s\ndata: {{source: iris}}\nspace: {space}\n")
    text = call("validate", "s.yaml", "--preview").out.replace("\n", " ")
    assert "There are 3 combinations of settings, all different." in text
    assert "less than the budget's 100 trials" in text
