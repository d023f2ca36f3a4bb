"""Optimizers and schedules against plain `torch.optim`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.trainer.trainer_cases import settings_of
from trainer.optimizers import Optimizer, learning_rate
from trainer.settings import OptimizerKind, Schedule

START = torch.linspace(-2, 3, 14, dtype=torch.float64)


def plain_optimizer(kind: OptimizerKind, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    match kind:
        case OptimizerKind.ADAM:
            return torch.optim.Adam(parameters, lr=0.02, weight_decay=0.1, foreach=False)
        case OptimizerKind.ADAMW:
            return torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1, foreach=False)
        case OptimizerKind.SGD:
            return torch.optim.SGD(parameters, lr=0.02, momentum=0.8, weight_decay=0.1, foreach=False)


@pytest.mark.parametrize("kind", OptimizerKind)
def test_steps_are_those_of_the_plain_optimizer(kind: OptimizerKind) -> None:
    ours, theirs = START.clone(), nn.Parameter(START.clone())
    mine = Optimizer(settings_of(optimizer=kind, weight_decay=0.1, momentum=0.8), ours)
    plain = plain_optimizer(kind, [theirs])
    mine.set_rate(0.02)
    for _ in range(5):
        for weights, gradient in ((theirs.detach(), torch.empty_like(START)), (ours, mine.gradient)):
            gradient.copy_(3 * weights**2 * (weights**3).cos())
            if weights is not ours:
                theirs.grad = gradient
        mine.step()
        plain.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)
    assert (ours - START).abs().min() > 1e-4


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
    weights = torch.zeros(1)
    optimizer = Optimizer(settings_of(optimizer=OptimizerKind.SGD, momentum=0.0), weights)
    for rate, expected in ((0.25, -0.25), (0.5, -0.75)):
        optimizer.set_rate(rate)
        optimizer.gradient.fill_(1)
        optimizer.step()
        assert weights.item() == pytest.approx(expected)
