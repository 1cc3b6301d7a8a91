"""Names the model that a Python program holds: --model=python:model."""

# The colon makes it a user's model, as in module:function.
NAME = "python:model"
