"""A trained network as a file that runs without this code."""

from __future__ import annotations

import io

import torch
from torch import nn

from trainer.device_data import Scale


def export_network(network: nn.Module, scale: nn.Module, input_shape: tuple[int, ...]) -> bytes:
    """A ``torch.export`` program (.pt2) of a network on the CPU, dropout off; `torch.export.load` reads it.

    The program takes one float32 tensor with any number of rows. For a table these are the encoded and standardised
    features, (rows, features). For images they are the raw pixel values cast to float32, (rows, channels, height,
    width): the scaling is part of the program. It returns (rows, outputs): logits for classification, the standardised
    prediction for regression.
    """
    whole = nn.Sequential(scale, network) if isinstance(scale, Scale) else network
    # The file's writer takes channels-last weights for parts of other tensors, and warns.
    whole.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # missing from torch's stubs
    # Two rows: from an example of one, torch.export would take the batch for always 1.
    example = torch.zeros(2, *input_shape)
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(whole, (example,), dynamic_shapes=({0: rows},), strict=False)
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()
