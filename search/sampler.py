"""Optuna's samplers for a study.

The draws of a trial come from a seed that is derived from the study's seed and the trial's number, so that they do not
depend on how many trials this process has proposed before it: a study that goes on after a stop proposes what it would
have proposed without one. `tpe` is our own and lasts for the study, as it would be slow to read all trials again; what
it knows is the same in whatever order it was told. Each trial gets one of Optuna's samplers for itself. They read all
they know of earlier trials from the study; what else they keep is a starting point for the fit of `GPSampler`, and
caches. CMA-ES is the exception: its state is a pickle, which is not kept, and after a stop it is built again from the
trials, a generation with each proposal (`search.study`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState

from search.spec import PrunerKind, SamplerKind, StudySpec
from search.tpe import TreeParzen


class Stream(IntEnum):
    """What a seed is for; seeds of different streams are independent of each other."""

    TRIAL = 0
    SAMPLER = 1
    SEQUENCE = 2
    REDRAW = 3
    AUDIT = 4
    EXTRA_RUN = 5
    SUBSET = 6
    EXPLAIN = 7
    PREVIEW = 8
    INSIGHT = 9


def derived_seed(seed: int, stream: Stream, number: int = 0) -> int:
    """A seed of 63 bits that belongs to one purpose and one trial of a study."""
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, number))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_sampler(spec: StudySpec, asked: int) -> BaseSampler:
    """The sampler for one trial; that of `tpe` is for all of them.

    What the samplers do in a conditional space, where they can't model all of it at once:

    - tpe: a tree-structured Parzen estimator (Bergstra et al. 2011, NIPS 24) for each parameter, from the trials that
      have it (`search.tpe`); running trials count as bad ones, so that they are not proposed twice.
    - gp, cmaes: a Gaussian process, or CMA-ES, over the parameters that all complete trials have (CMA-ES: the numbers
      among them); Optuna's TPE for each of the others. Trials that were pruned teach the Gaussian process nothing; they
      teach CMA-ES by their last epoch where the pruner is asha or hyperband, which leave few complete ones.
    - qmc: a scrambled Sobol sequence over the parameters of the study's first trial; random values for the others.
    - grid: every combination once, in random order. `search.space.Space` says which values of a range it takes.

    Args:
        asked: How many trials the study has proposed so far: the number of this trial.
    """
    # RandomState takes 32 bits.
    own = derived_seed(spec.seed, Stream.SAMPLER, asked) % 2**32
    with warnings.catch_warnings():
        # Optuna calls some of what is used here experimental; the pinned version is tested.
        warnings.simplefilter("ignore", ExperimentalWarning)
        match spec.search.sampler:
            case SamplerKind.TPE:
                return TreeParzen(lambda number: derived_seed(spec.seed, Stream.SAMPLER, number))
            case SamplerKind.RANDOM:
                return RandomSampler(seed=own)
            case SamplerKind.GP:
                return GPSampler(seed=own, independent_sampler=_tpe(own), warn_independent_sampling=False)
            case SamplerKind.CMAES:
                return CmaEsSampler(
                    seed=own,
                    independent_sampler=_tpe(own),
                    warn_independent_sampling=False,
                    consider_pruned_trials=spec.search.pruner in (PrunerKind.ASHA, PrunerKind.HYPERBAND),
                )
            case SamplerKind.QMC:
                return QMCSampler(
                    scramble=True,
                    seed=derived_seed(spec.seed, Stream.SEQUENCE) % 2**32,
                    independent_sampler=RandomSampler(seed=own),
                    warn_independent_sampling=False,
                )
            case SamplerKind.GRID:
                return _Grid(seed=own)


def quiet_optuna() -> None:
    """Keeps Optuna's notes off the screen: a line for each trial, and warnings that a space is conditional."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def redrawing(spec: StudySpec, number: int) -> BaseSampler:
    """Random values for a trial whose sampler proposes nothing that was not tried before."""
    return RandomSampler(seed=derived_seed(spec.seed, Stream.REDRAW, number) % 2**32)


def _tpe(seed: int) -> BaseSampler:
    """For the parameters that `gp` and `cmaes` leave over."""
    return TPESampler(seed=seed, multivariate=False)


class _Grid(BruteForceSampler):
    """Every combination once; whoever asks finds out by himself that all have been tried."""

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Does nothing: Optuna's own calls `Study.stop` at the end, an error outside of `Study.optimize`."""
