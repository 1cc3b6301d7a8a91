"""Finds the examples with the most wrong predictions in an evaluation, and makes thumbnails."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.data import pipeline, png
from trainer.data.bucket import open_folders
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.training.evaluation import Predictions


def find(
    predictions: Predictions,
    source: InMemoryDataset | IndexedDataset,
    names: Sequence[str],
    augment: str,
    most: int = 20,
) -> list[dict[str, Any]]:
    """Returns the wrongly predicted examples with the largest losses, the largest first.

    Args:
      predictions: predictions for the examples of `source`.
      source: the evaluation split.
      names: a name for each logit.
      augment: value of --augment in training; it decides which part of each image is evaluated.
      most: largest number of examples to return.

    Returns:
      A dictionary for each example:
      - index, path: index in the split, and path of the file (None if a file has several examples);
      - class, predicted: names of the example's class and of the predicted class;
      - class_probability, predicted_probability: probabilities of these two classes;
      - thumbnail: the image that the model gets, as a small PNG in base64.
    """
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    # The sort is stable, so equal losses stay in the order of the split.
    places = wrong[np.argsort(-predictions.losses[wrong], kind="stable")][:most].tolist()
    if not places:
        return []
    indices = predictions.indices[places].tolist()
    images = pipeline.evaluated(source, indices, augment)
    return [
        {
            "index": index,
            "path": open_folders.shown(source.path(index)) if source.path else None,
            "class": names[predictions.labels[place]],
            "predicted": names[predictions.predicted[place]],
            "class_probability": float(predictions.probabilities[place]),
            "predicted_probability": float(predictions.confidences[place]),
            "thumbnail": base64.b64encode(png.thumbnail(image)).decode(),
        }
        for place, index, image in zip(places, indices, images, strict=True)
    ]
