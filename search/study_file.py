"""The study file: read with line numbers, checked against its data, written with every default filled in."""

from search.dimensions import Choice, Dimension, Fixed, Range
from search.spec import CONV_KEYS, PrunerKind, SamplerKind, SpaceSpec, StudySpec, data_request

__all__ = [
    "CONV_KEYS",
    "Choice",
    "Dimension",
    "Fixed",
    "PrunerKind",
    "Range",
    "SamplerKind",
    "SpaceSpec",
    "StudySpec",
    "data_request",
]
