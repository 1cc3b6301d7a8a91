"""Crescendo, a distributed trainer that grows the batch instead of lowering the learning rate."""

__version__ = "0.1.0"
