"""A champion that is no network: for `orch predict` without TensorFlow and MLflow, also in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

from orchestrator.commands.predict import Champion
from orchestrator.tracking.registry import ChampionInfo
from trainers.errors import TrainerError


class AskedModel:
    """Says "long" of more than ten bytes and "short" of others; refuses what starts with "bad".

    ``probability`` depends on the photos asked about together, as floats of a network do. ``gives_reasons``: names all
    bad photos at once, as the served model does; older ones name the first.
    """

    def __init__(self, gives_reasons: bool = False) -> None:
        self.calls = 0
        self.gives_reasons = gives_reasons

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        self.calls += 1
        images = frame["image"].tolist()
        bad = {at: "cannot decode\nan image" for at, image in enumerate(images) if image.startswith(b"bad")}
        if bad:
            error = TrainerError("cannot decode\nan image")
            if self.gives_reasons:
                error.reasons = bad  # type: ignore[attr-defined]
            raise error
        labels = ["long" if len(image) > 10 else "short" for image in images]
        said = [json.dumps({"long": 0.75, "short": 0.25})] * len(images)
        together = sum(map(len, images)) % 997 / 1000
        return pd.DataFrame({"label": labels, "probability": 0.75 + together / 1000, "probabilities": said})


class AskedChampion(Champion):
    """A champion whose model is an ``AskedModel``."""

    def load(self) -> AskedModel:
        return AskedModel(gives_reasons=True)


def asked_champion(name: str = "garbage", version: str = "1") -> AskedChampion:
    return AskedChampion(None, ChampionInfo(name, version, "", {}, ""))


def main() -> None:
    """``orch`` with the arguments of this process, and with this champion for every model."""
    from orchestrator.cli import app
    from orchestrator.commands import predict

    predict.find_champion = lambda model: asked_champion()  # type: ignore[assignment]
    sys.exit(app.run(sys.argv[1:]))


def write_files(folder: Path, count: int) -> None:
    """``count`` files, of which every seventh is bad and every eleventh is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        content = b"bad" if i % 7 == 0 else b"" if i % 11 == 0 else b"x" * (i % 23)
        (folder / f"{i:06}.png").write_bytes(content)


if __name__ == "__main__":
    main()
