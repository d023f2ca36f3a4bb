"""The study file: read with the line of every key, held against its data, and written new for `neurosweep init`."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template

from neurosweep.errors import StudyFileError
from search.dimensions import Choice, Dimension, Fixed, Range, did_you_mean, shown, whole_values
from search.spec import PrunerKind, SamplerKind, SpaceSpec, StudySpec, data_request, fitting_name
from search.yaml_reader import MAX_CHARACTERS, read_yaml
from search.yaml_writer import yaml_text
from trainer.data.dataset import Dataset
from trainer.settings import Family

__all__ = [
    "Choice",
    "Dimension",
    "Fixed",
    "PrunerKind",
    "Range",
    "SamplerKind",
    "SpaceSpec",
    "StudySpec",
    "check_against_data",
    "data_request",
    "parse_study",
    "read_study",
    "study_text",
    "template",
]

ON_DISK = ("digits", "iris", "wine", "breast_cancer", "diabetes")
"""scikit-learn's sets, which are a source by their name alone."""


def read_study(path: str | Path) -> StudySpec:
    """The study in a file.

    Raises:
        StudyFileError: The file can't be read, or breaks a rule; `where` says the line.
    """
    return parse_study(study_text(path), str(path))


def study_text(path: str | Path) -> str:
    """A study file's text.

    Raises:
        StudyFileError: It can't be read, is not UTF-8 or is larger than a study file can be.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_CHARACTERS + 1)
    except FileNotFoundError:
        raise StudyFileError("there is no such file: `neurosweep init` writes one", str(path)) from None
    except IsADirectoryError:
        raise StudyFileError("a study is one YAML file, but this is a folder", str(path)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StudyFileError(f"the file can't be read: {reason}", str(path)) from None
    if len(content) > MAX_CHARACTERS:
        raise StudyFileError(f"a study file has at most {MAX_CHARACTERS:,} bytes, but this has more", str(path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"a study file is UTF-8 text, but has the byte 0x{content[error.start]:02x} here: save it as UTF-8"
        raise StudyFileError(message, f"{path}:{line}") from None


def parse_study(text: str, where: str = "study.yaml") -> StudySpec:
    """The study in a text; a relative `data.source` is taken from the folder of `where`, and made absolute.

    Raises:
        StudyFileError: The text breaks a rule.
    """
    document = read_yaml(text.removeprefix("\ufeff"), where)
    if document.value is None:
        raise StudyFileError("the file is empty: `neurosweep init` writes one to begin with", where)
    spec = StudySpec.from_mapping(document.value, document.positions)
    source = _absolute(spec, Path(where).parent)
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"source": source})})
    return spec if spec.task is None else spec.resolved(spec.task)


def _absolute(spec: StudySpec, folder: Path) -> str:
    source = spec.data.source
    where = spec.where("data", "source")
    if source in ON_DISK or source.startswith("hf:"):
        if source.removeprefix("hf:").strip():
            return source
        raise StudyFileError("hf: must be followed by a data set's name, such as hf:ylecun/mnist", where)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        raise StudyFileError(f"source must be a file on disk, not an address: download {shown(source)} first", where)
    try:
        path = folder / Path(source).expanduser()
        is_word = path.name == source and not path.suffix and not path.exists()
        near = did_you_mean(source, ON_DISK) if is_word else ""
        absolute = str(path.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # such as ~nobody, a NUL, or a name that is too long
        raise StudyFileError(f"source {shown(source)} can't be a path: {error}", where) from None
    if near:
        raise StudyFileError(f"source {shown(source)} is neither a file, a folder nor a known set{near}", where)
    return absolute


def check_against_data(spec: StudySpec, dataset: Dataset) -> StudySpec:
    """The study with the data's task and metric, once it is sure that its networks can take the data.

    Raises:
        StudyFileError: The task or the metric is for other data, a CNN is to learn a table, or every filter is
            larger than the images.
    """
    resolved = spec.resolved(dataset.task)
    if Family.CNN in spec.model:
        if len(dataset.input_shape) != 3:
            message = "a CNN needs images, but this data is a table: write model: mlp"
            raise StudyFileError(message, spec.where("model"))
        _check_filters(spec, *dataset.input_shape[1:])
    return resolved


def _check_filters(spec: StudySpec, height: int, width: int) -> None:
    smallest, side = whole_values(spec.space.filter_size)[0], min(height, width)
    if smallest > side:
        message = f"a filter can't be larger than its image, but the smallest filter is {smallest} x {smallest}"
        where = spec.where("space", "filter_size")
        raise StudyFileError(f"{message} and the images {height} x {width} pixels: write at most {side}", where)


def template(data: str | None = None, model: str | None = None, name: str | None = None) -> str:
    """A commented study file that is valid as it is and says the defaults.

    Args:
        data: `data.source`, as the file shall say it; digits by default.
        model: ``mlp`` or ``cnn``; by default both for images, else mlp.
        name: The study's name; by default made from the data's.
    """
    source = data or "digits"
    family = model or ("[mlp, cnn]" if _may_be_images(source) else "mlp")
    room = files("search")
    convolutions = room.joinpath("study_template_cnn.yaml").read_text("utf-8") if "cnn" in family else ""
    return Template(room.joinpath("study_template.yaml").read_text("utf-8")).substitute(
        name=_quoted(name or _name_from(source)),
        source=_quoted(source),
        model=family,
        convolutions=convolutions,
    )


def _may_be_images(source: str) -> bool:
    return source == "digits" or source.endswith(".npz") or (source not in ON_DISK and Path(source).is_dir())


def _name_from(source: str) -> str:
    return fitting_name(Path(source.removeprefix("hf:")).stem) or "study"


def _quoted(text: str) -> str:
    """The text as YAML, in quotes where it needs them."""
    return yaml_text({"text": text}).removeprefix("text:").strip()
