"""Measurements, side by side with a peer in one run. Each is a script: `python -m benchmarks.NAME`."""
