"""Rebuilds the embedded models, word vectors, class names, sorts and characters from their published sources.

python models/convert/build.py            write the files into models/
python models/convert/build.py --check    rebuild elsewhere and compare with the files in models/
python models/convert/build.py --verify   compare with PyTorch and TensorFlow.js (needs node and npm)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import efficientnet
import names
import nanodet
import sorts
import sources
import text_reader
import tfjs
import verify
import words

if TYPE_CHECKING:
    import torch

MODELS = Path(__file__).resolve().parent.parent
NANODET_FILE = "nanodet-g-416.onnx"
EFFICIENTNET_FILE = "efficientnet-lite0-224.onnx"
NAMES_FILE = "imagenet-1k.txt"
SORTS_FILE = "imagenet-sorts.tsv"
TEXT_DETECTOR_FILE = "pp-ocrv6-tiny-det.onnx"
TEXT_RECOGNISER_FILE = "pp-ocrv6-tiny-rec.onnx"
CHARACTERS_FILE = "pp-ocrv6-characters.txt"
WORDS_FILE = "minilm-l6-static-128.npz"


def read_nanodet(downloads: Path) -> tfjs.GraphModel:
    """Return NanoDet's source graph, fetched where needed."""
    graph = sources.fetch(sources.NANODET_GRAPH, into=downloads)
    return tfjs.read_graph_model(graph, weights=sources.fetch(sources.NANODET_WEIGHTS, into=downloads))


def read_efficientnet(downloads: Path) -> dict[str, torch.Tensor]:
    """Return EfficientNet-Lite0's state dict, fetched where needed."""
    import torch

    return torch.load(sources.fetch(sources.EFFICIENTNET_WEIGHTS, into=downloads), weights_only=True)


def convert_words(downloads: Path) -> bytes:
    """Return the table of word vectors, whose sources are fetched where needed; takes minutes."""
    folder = downloads / "minilm"
    for source in (sources.MINILM_CONFIGURATION, sources.MINILM_WEIGHTS):
        sources.fetch(source, into=folder)
    listing = sources.fetch(sources.MINILM_VOCABULARY, into=folder).read_text(encoding="utf-8")
    return words.convert(folder, vocabulary=listing.removesuffix("\n").split("\n"))


def build(downloads: Path) -> dict[str, bytes]:
    """Return every built file by name."""
    arrays = {name: tensor.numpy() for name, tensor in read_efficientnet(downloads).items()}
    labels = names.read_names(sources.fetch(sources.IMAGENET_NAMES, into=downloads).read_text(encoding="utf-8"))
    wordnet = sources.fetch(sources.WORDNET, into=downloads).read_bytes()
    synsets = sources.fetch(sources.IMAGENET_SYNSETS, into=downloads).read_text(encoding="utf-8").split()
    recogniser = sources.fetch(sources.TEXT_RECOGNISER, into=downloads).read_bytes()
    return {
        NANODET_FILE: nanodet.convert(read_nanodet(downloads), half=True),
        EFFICIENTNET_FILE: efficientnet.convert(arrays, half=True),
        NAMES_FILE: ("\n".join(labels) + "\n").encode(),
        SORTS_FILE: sorts.convert(wordnet, synsets=synsets, names=labels),
        TEXT_DETECTOR_FILE: sources.fetch(sources.TEXT_DETECTOR, into=downloads).read_bytes(),
        TEXT_RECOGNISER_FILE: recogniser,
        CHARACTERS_FILE: ("\n".join(text_reader.read_characters(recogniser)) + "\n").encode(),
        WORDS_FILE: convert_words(downloads),
    }


def write(downloads: Path) -> int:
    """Write the built files into models/ and print what their cards need."""
    for name, content in build(downloads).items():
        path = MODELS / name
        path.write_bytes(content)
        print(f"{name}: sha256 {sources.sha256_of(path)}, {len(content)} bytes")
    return 0


def check(downloads: Path) -> int:
    """Rebuild and compare; return 1 where a file differs from the one in models/."""
    differing = [name for name, content in build(downloads).items() if (MODELS / name).read_bytes() != content]
    print(f"Differs from models/: {', '.join(differing)}" if differing else "models/ is what the sources give.")
    return 1 if differing else 0


def report(downloads: Path) -> int:
    """Print how far the converted models lie from their sources, with float32 and with float16 weights."""
    image = verify.nanodet_input(verify.read_photo(nanodet.INPUT_PX))
    graph, weights = (
        sources.fetch(source, into=downloads) for source in (sources.NANODET_GRAPH, sources.NANODET_WEIGHTS)
    )
    expected = verify.run_tfjs(graph, weights=weights, image=image, folder=downloads / "tfjs")
    model = read_nanodet(downloads)
    for half in (False, True):
        converted = nanodet.convert(model, half=half)
        _print_agreements("NanoDet against tfjs", half=half, model=converted, image=image, expected=expected)

    image = verify.efficientnet_input(verify.read_photo(efficientnet.INPUT_PX))
    state = read_efficientnet(downloads)
    expected = verify.run_torch(state, image)
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    for half in (False, True):
        converted = efficientnet.convert(arrays, half=half)
        title = "EfficientNet-Lite0 against PyTorch"
        _print_agreements(title, half=half, model=converted, image=image, expected=expected)
    return 0


def _print_agreements(
    title: str,
    *,
    half: bool,
    model: bytes,
    image: verify.Array,
    expected: dict[str, verify.Array],
) -> None:
    print(f"{title}, {'float16' if half else 'float32'} weights:")
    for agreement in verify.compare(model, image, expected):
        print(f"  {agreement}")


def main(arguments: list[str]) -> int:
    """Run one of the three commands and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the files in models/")
    parser.add_argument("--verify", action="store_true", help="compare with independent implementations")
    parser.add_argument("--downloads", type=Path, help="keep the downloaded packages in this folder")
    options = parser.parse_args(arguments)
    command = report if options.verify else check if options.check else write
    if options.downloads:
        return command(options.downloads)
    with tempfile.TemporaryDirectory() as folder:
        return command(Path(folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
