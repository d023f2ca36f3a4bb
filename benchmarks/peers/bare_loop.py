"""Trains given trials one after the other in one process: no search, no SQL, no MLflow. Settings come on stdin."""

from __future__ import annotations

import json
import sys
import time

import torch

from benchmarks.peers.plain import digits, train


def main() -> None:
    order = json.load(sys.stdin)
    torch.set_num_threads(1)
    data = digits()
    # The first steps of a process are slower than the rest; start-up is left out on both sides.
    train(order["trials"][0], data, 1)
    started = time.perf_counter()
    best = min(min(train(params, data, order["epochs"])) for params in order["trials"])
    seconds = time.perf_counter() - started
    json.dump({"seconds": seconds, "trials": len(order["trials"]), "best": best}, sys.stdout)


if __name__ == "__main__":
    main()
