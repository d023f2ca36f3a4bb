"""One trial of `syne_asha.py`: a script that Syne Tune starts with the settings as its arguments."""

from __future__ import annotations

import argparse
import time

import torch
from syne_tune import Reporter

from benchmarks.peers.plain import from_file, training
from benchmarks.peers.spaces import MOST_LAYERS


def main() -> None:
    parser = argparse.ArgumentParser()
    whole = ("layers", "batch_norm", "batch_size", "epochs", *(f"neurons_{n}" for n in range(1, MOST_LAYERS + 1)))
    for name in whole:
        parser.add_argument(f"--{name}", type=int)
    for name in ("learning_rate", "weight_decay", "dropout"):
        parser.add_argument(f"--{name}", type=float)
    for name in ("activation", "optimizer", "schedule", "data"):
        parser.add_argument(f"--{name}")
    params = vars(parser.parse_known_args()[0])
    torch.set_num_threads(1)
    report = Reporter()
    for epoch, error in enumerate(training(params, from_file(params["data"]), params["epochs"]), start=1):
        report(epoch=epoch, error=error, at=time.time())


if __name__ == "__main__":
    main()
