"""Crescendo, a distributed trainer whose batches grow instead of its learning rate decaying."""

__version__ = "0.1.0"
