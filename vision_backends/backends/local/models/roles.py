"""What runs a model of each role.

This module decides which class of ours, and which of transformers', stands for a role. It costs what all models do
together, and is imported when the first one is loaded. It must not know how anything is loaded.
"""

from __future__ import annotations

from vision_backends.backends.local.models.captioner import Captioner
from vision_backends.backends.local.models.detector import ClosedDetector, OpenDetector
from vision_backends.backends.local.models.embedder import Embedder

__all__ = ["ENGINES", "Engine"]

Engine = Captioner | Embedder | ClosedDetector | OpenDetector

ENGINES: dict[str, tuple[type[Engine], str]] = {
    "caption": (Captioner, "AutoModelForImageTextToText"),
    "embedding": (Embedder, "AutoModel"),
    "detection": (ClosedDetector, "AutoModelForObjectDetection"),
    "open_vocabulary": (OpenDetector, "AutoModelForZeroShotObjectDetection"),
}
"""What runs a model of each role, and the transformers class that loads it."""
