"""What preparing pictures of extreme shapes for local models takes: the peak of memory above the picture itself.

Each kind of model has a process of its own, random weights of a few kB and the image processor of its family at its
usual size; nothing but the processor sees the pictures. Linux only: the peak is the kernel's own figure, reset before
each picture.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timing import ROOT, Figure, run_python, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from vision_backends import Image

SHAPES = (
    (65_535, 610),
    (610, 65_535),
    (7000, 5700),
    (40_000, 1000),
    (40_000, 6),
    (6, 40_000),
    (65_535, 1),
    (1, 65_535),
    (1, 1),
)
"""The largest pictures that are allowed, and the thinnest and smallest."""

USUAL = (640, 480)
"""Prepared first, so that what it imports counts for no other."""

MOST_MB = 300

ROLES = {
    "embedding": ("clip", "siglip", "siglip2", "siglip2_naflex"),
    "caption": (
        "blip",
        "blip2_opt",
        "florence2",
        "smolvlm",
        "idefics3",
        "qwen2_vl",
        "qwen3_vl",
        "llava",
        "llava_onevision",
    ),
    "detection": ("d_fine", "rt_detr_v2", "detr", "yolos", "rf_detr", "lw_detr"),
    "open_vocabulary": ("owlv2", "owlvit", "grounding_dino"),
}

SIZES = ("size", "crop_size", "max_image_size", "image_grid_pinpoints", "min_pixels", "max_pixels", "max_num_patches")
"""Settings of an image processor that decide how large its output is."""


def main() -> None:
    """Print the figures, or those of one kind for the process that measures them."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--kind")
    parser.add_argument("--role")
    parser.add_argument("--pictures", type=Path)
    given, _ = parser.parse_known_args()
    if given.kind:
        print(json.dumps(_measured(given.kind, given.role, given.pictures)))
    else:
        show("Memory for preparing pictures", _figures)


def _figures() -> list[Figure]:
    from PIL import Image as PILImage

    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for width, height in (USUAL, *SHAPES):
            PILImage.new("RGB", (width, height), "red").save(Path(folder) / f"{width}x{height}.png", compress_level=1)
        for role, kinds in ROLES.items():
            for kind in kinds:
                said, _ = run_python(__file__, "--kind", kind, "--role", role, "--pictures", folder)
                found = json.loads(said.splitlines()[-1])
                print(f"{kind:>16}: {'  '.join(f'{name} {mb:.0f}' for name, mb in found.items())}", file=sys.stderr)
                figures.append(Figure(name=kind, value=max(found.values()), unit="MB", target=MOST_MB))
    return figures


def _measured(kind: str, role: str, pictures: Path) -> dict[str, float]:
    """Return the megabytes that preparing a picture of each shape takes for one kind of model."""
    from vision_backends import open_image

    with tempfile.TemporaryDirectory() as folder:
        prepare, image_px = _preparing(kind, role, Path(folder))
        peaks = {}
        for width, height in (USUAL, *SHAPES):
            name = f"{width}x{height}"
            image = open_image(pictures / f"{name}.png", min_side_px=image_px)
            peaks[name] = _peak_mb(prepare, image)
    return peaks


def _preparing(kind: str, role: Any, folder: Path) -> tuple[Callable[[Image], object], int | None]:  # noqa: ANN401
    """Return what prepares pictures for a kind of model, and how large they are decoded for it."""
    sys.path.insert(0, str(ROOT / "tests" / "backends" / "local"))
    import tiny
    import tiny_captioners
    import tiny_detectors
    import tiny_towers

    from vision_backends.backends.local import LocalBackend
    from vision_backends.backends.local.models.captioner import Captioner

    makers = tiny.MAKERS | tiny_captioners.MAKERS | tiny_detectors.MAKERS | tiny_towers.MAKERS
    model = makers[kind](folder / kind)
    _enlarge(model)
    backend = LocalBackend(**{f"{role}_model": str(model)}, engine="torch", download="never")
    configured = backend._models[role]
    configured.load()
    made = configured._slot.value
    loaded = made.loaded
    text = None
    if isinstance(made, Captioner):
        text = made._style.task_for(None) if made._style else made._chat("What is it?")

    def prepare(image: Image) -> object:
        if text is None:
            return loaded.prepare(image)
        return loaded.processor(images=[loaded.pixels(image)], text=[text], return_tensors="pt")

    return prepare, loaded.checkpoint.image_px


def _enlarge(model: Path) -> None:
    """Give the image processor of a tiny model the sizes that its family usually has."""
    from transformers import AutoImageProcessor

    for name in ("preprocessor_config.json", "processor_config.json"):
        file = model / name
        if not file.is_file():
            continue
        table = json.loads(file.read_text())
        settings = table.get("image_processor", table)
        if settings.get("image_processor_type", "").startswith("RfDetr"):
            continue
        usual = type(AutoImageProcessor.from_pretrained(model, backend="pil"))().to_dict()
        settings |= {key: usual[key] for key in SIZES if key in settings and usual.get(key) is not None}
        file.write_text(json.dumps(table))


def _peak_mb(prepare: Callable[[Image], object], image: Image) -> float:
    from vision_backends.backends.local.runtime.memory import give_back_memory

    gc.collect()
    give_back_memory()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # from here on, the peak counts anew: proc(5)
    before = _status_mb("VmRSS")
    prepare(image)
    return _status_mb("VmHWM") - before


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1000


if __name__ == "__main__":
    main()
