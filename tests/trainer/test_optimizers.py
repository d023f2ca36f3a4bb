"""Optimizers and schedules against plain `torch.optim`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.trainer.trainer_cases import settings_of
from trainer.optimizers import learning_rate, make_optimizer, set_learning_rate
from trainer.settings import OptimizerKind, Schedule

START = [torch.linspace(-2, 3, 12, dtype=torch.float64).view(3, 4), torch.tensor([0.5, -1.0], dtype=torch.float64)]


def plain_optimizer(kind: OptimizerKind, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    match kind:
        case OptimizerKind.ADAM:
            return torch.optim.Adam(parameters, lr=0.02, weight_decay=0.1, foreach=False)
        case OptimizerKind.ADAMW:
            return torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1, foreach=False)
        case OptimizerKind.SGD:
            return torch.optim.SGD(parameters, lr=0.02, momentum=0.8, weight_decay=0.1, foreach=False)


def steps(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    for _ in range(5):
        optimizer.zero_grad()
        torch.autograd.backward([(parameter**3).sin().sum() for parameter in parameters])
        optimizer.step()


@pytest.mark.parametrize("kind", OptimizerKind)
def test_steps_are_those_of_the_plain_optimizer(kind: OptimizerKind) -> None:
    ours, theirs = ([nn.Parameter(start.clone()) for start in START] for _ in range(2))
    chosen = settings_of(optimizer=kind, learning_rate=0.02, weight_decay=0.1, momentum=0.8)
    steps(make_optimizer(chosen, ours), ours)
    steps(plain_optimizer(kind, theirs), theirs)
    for mine, other, start in zip(ours, theirs, START, strict=True):
        torch.testing.assert_close(mine, other)
        assert (mine - start).abs().min() > 1e-3


def test_cosine_schedule_is_that_of_cosine_annealing() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    chosen = settings_of(learning_rate=0.3, schedule=Schedule.COSINE)
    for epoch in range(1, 8):
        assert learning_rate(chosen, epoch, 7) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_constant_schedule_does_not_change() -> None:
    chosen = settings_of(learning_rate=0.3, schedule=Schedule.CONSTANT)
    assert {learning_rate(chosen, epoch, 5) for epoch in range(1, 6)} == {0.3}


def test_new_rate_is_used_by_the_next_step() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = make_optimizer(settings_of(optimizer=OptimizerKind.SGD, momentum=0.0), [parameter])
    set_learning_rate(optimizer, 0.25)
    parameter.grad = torch.ones(1)
    optimizer.step()
    assert parameter.item() == pytest.approx(-0.25)
