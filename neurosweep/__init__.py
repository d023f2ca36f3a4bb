"""neurosweep: hyperparameter search for neural networks. Holds what every room shares: the version and the errors."""

__version__ = "0.1.0"
