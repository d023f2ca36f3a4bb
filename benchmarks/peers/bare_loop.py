"""Trains given trials one after the other in one process: no search, no SQL, no MLflow.

Order: `trials` (their settings), `epochs`, and `data`, a file of splits (digits where it is missing).
"""

from __future__ import annotations

import time

import torch

from benchmarks.peers.order import answer, await_start, take_order
from benchmarks.peers.plain import digits, from_file, train, warm_up


def main() -> None:
    order = take_order()
    torch.set_num_threads(1)
    data = from_file(order["data"]) if order.get("data") else digits()
    warm_up(order["trials"][0], data)
    await_start()
    began = time.time()
    best = min(min(train(params, data, order["epochs"])) for params in order["trials"])
    answer({"began": began, "ended": time.time(), "trials": len(order["trials"]), "best": best})


if __name__ == "__main__":
    main()
