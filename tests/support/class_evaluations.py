"""Contents of evaluation.json, written by hand."""

import base64
import io

from PIL import Image


def thumbnail(level: int) -> str:
    """Returns a grey PNG of 8 × 8 pixels in base64."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), level).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def row(name, support, predicted, correct, mistaken_for=None, mistakes=0):
    """Numbers of a class."""
    return {
        "name": name,
        "support": support,
        "predicted": predicted,
        "correct": correct,
        "precision": correct / predicted if support and predicted else None,
        "recall": correct / support if support else None,
        "f1": 2 * correct / (support + predicted) if support else None,
        "mistaken_for": mistaken_for,
        "mistakes": mistakes,
    }


HOSTILE = '<script>alert("1")</script> & $x^2$ "\'>\n\x1b[31m'

CONTENT = {
    "loss": 0.7,
    "top1": 0.75,
    "top5": 1.0,
    "examples": 8,
    "checkpoint": "runs/x/checkpoints/000000020",
    "dataset": "image_folder:photographs",
    "split": "val",
    "update": 20,
    "balanced_accuracy": 0.7,
    "without_support": ["owl"],
    "classes": [
        row("cat", 5, 5, 4, 1, 1),
        row(HOSTILE, 3, 3, 2, 0, 1),
        row("owl", 0, 0, 0),
    ],
    "confusion": [[0, 0, 4], [0, 1, 1], [1, 0, 1], [1, 1, 2]],
    "calibration": {
        "bins": 2,
        "ece": 0.05,
        "curve": [
            {"low": 0.0, "high": 0.5, "examples": 0, "confidence": None, "accuracy": None},
            {"low": 0.5, "high": 1.0, "examples": 8, "confidence": 0.8, "accuracy": 0.75},
        ],
    },
    "most_wrong": [
        {
            "index": 6,
            "path": f"photographs/val/{HOSTILE}/\udcff6.jpg",
            "class": HOSTILE,
            "predicted": "cat",
            "class_probability": 0.01,
            "predicted_probability": 0.99,
            "thumbnail": thumbnail(40),
        },
        {
            "index": 4,
            "path": None,
            "class": "cat",
            "predicted": HOSTILE,
            "class_probability": 0.2,
            "predicted_probability": 0.6,
            "thumbnail": thumbnail(200),
        },
    ],
}
