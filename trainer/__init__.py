"""How one network learns. Imports neither search nor storage; needs PyTorch, NumPy and the standard library alone."""
