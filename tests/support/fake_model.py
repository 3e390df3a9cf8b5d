"""A model for tests, in MLflow's loader shape: its label is the length of the image's bytes, modulo the classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd


class LengthModel:
    def __init__(self, classes: list[str]) -> None:
        self.classes = classes

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        labels = [self.classes[len(image) % len(self.classes)] for image in model_input["image"]]
        rows = [{name: float(name == label) for name in self.classes} for label in labels]
        return pd.DataFrame(
            {"label": labels, "probability": [1.0] * len(labels), "probabilities": [json.dumps(row) for row in rows]}
        )


def _load_pyfunc(data_path: str) -> LengthModel:
    return LengthModel(json.loads((Path(data_path) / "model.json").read_text())["classes"])
