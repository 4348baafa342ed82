"""What ships with the package: model cards, model files and the vocabulary of labels.

This module decides where shipped files are and what a model card says. It must not know how a model is run.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

from vision_backends.types import Task

__all__ = ["ModelCard", "Quality", "asset", "coco_categories", "flaw_of_asset", "model_card", "model_cards"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A published figure, never one of our own measurements.

    Attributes:
        metric: What was measured, on which data.
        value: The figure, in the unit that the metric names.
        source: Where it was published.
    """

    metric: str
    value: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Facts about a model that are known without running it; one file in ``models/*.toml``.

    Attributes:
        name: The model's name, as its publisher writes it.
        tasks: What it is used for.
        backend: The rung that runs it.
        licence: SPDX identifier of its licence.
        source: Where the weights come from.
        restriction: What the licence does not allow, as a sentence; None when it allows any use.
        parameters: Number of weights.
        input_px: Side of the square input in pixels, or the longest side; None when any size is taken.
        dimension: Components of its embedding; None when it makes none.
        memory_bytes: Approximate memory of the loaded model.
        revision: Exact version; None when the newest is taken.
        file: Name of the shipped file; None when it is downloaded.
        sha256: Checksum of the shipped file.
        size_bytes: Size of the file or of the download.
        quality: Published figures, the best known first.
    """

    name: str
    tasks: tuple[Task, ...]
    backend: str
    licence: str
    source: str
    restriction: str | None = None
    parameters: int | None = None
    input_px: int | None = None
    dimension: int | None = None
    memory_bytes: int | None = None
    revision: str | None = None
    file: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    quality: tuple[Quality, ...] = ()

    @property
    def alias(self) -> str:
        """A short name, which is also that of the card's file: ``"clip-vit-b-32"``."""
        return self.name.rpartition("/")[2].lower()

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Read a card.

        Raises:
            ValueError: The text is not a valid card; names the key at fault.
        """
        table: dict[str, Any] = tomllib.loads(text)
        tasks = table.pop("tasks", None)
        if not isinstance(tasks, list) or not tasks or not all(task in get_args(Task) for task in tasks):
            raise ValueError(f"tasks = {tasks!r} is not a list of tasks; the tasks are {', '.join(get_args(Task))}.")
        figures = table.pop("quality", [])
        try:
            return cls(tasks=tuple(tasks), quality=tuple(Quality(**each) for each in figures), **table)
        except TypeError as error:
            raise ValueError(f"A model card has a wrong or missing key: {error}.") from error


def asset(name: str) -> Path:
    """Return the path of a shipped file, such as ``"coco-80.tsv"``.

    The wheel carries the folder ``models`` inside the package; a checkout has it beside the package.
    """
    package = Path(__file__).parents[1]
    inside = package / "models"
    return (inside if inside.is_dir() else package.parent / "models") / name


def flaw_of_asset(card: ModelCard) -> str | None:
    """Compare a shipped file with its card; return what is wrong with it, or None.

    Args:
        card: One with a `ModelCard.file`.
    """
    path = asset(card.file or "")
    if not path.is_file():
        return f"{path} is missing"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == card.sha256 else f"{path} has the wrong sha256 {found}"


def model_card(stem: str) -> ModelCard:
    """Return the card in ``models/<stem>.toml``."""
    return ModelCard.from_toml(asset(f"{stem}.toml").read_text(encoding="utf-8"))


def model_cards() -> list[ModelCard]:
    """Return all shipped cards, sorted by file name."""
    return [model_card(path.stem) for path in sorted(asset("").glob("*.toml"))]


def coco_categories() -> dict[str, int]:
    """Return COCO's 80 object names in the models' order, each with its category id (1 to 90)."""
    lines = asset("coco-80.tsv").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("\t") for line in lines if line and not line.startswith("#"))
    return {name: int(category) for category, name in pairs}
