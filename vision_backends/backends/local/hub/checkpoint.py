"""A checkpoint on disk: what it holds, which version it is, and whether it may be loaded at all.

This module decides what a folder must and must not contain. It must not know where folders come from, and imports
nothing that runs a model: whatever it refuses was refused before any code of torch or transformers saw it.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from vision_backends.backends.local.hub.flaws import (
    MOST_SETTINGS_BYTES,
    FlawError,
    odd_files_are_flaws,
    read_json,
    read_table,
    refusing,
    unreadable,
)
from vision_backends.backends.local.hub.labels import class_names
from vision_backends.backends.local.hub.weights import (
    INDEX,
    WEIGHTS,
    count_numbers,
    find_weights,
    read_header,
    refuse_holes,
    start_of,
    tensors,
)
from vision_backends.regular_file import chunks_of_regular, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "MOST_FILES",
    "TOKENIZERS",
    "Checkpoint",
    "check_settings",
    "flaws_of_files",
    "layout_of",
    "read_checkpoint",
]

VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
"""Large files of words, which configure nothing."""

TOKENIZERS = (
    *("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)
"""Vocabularies, of which a model that knows words has at least one."""

PARTS_OF_REVISION = frozenset({".json", ".txt", ".model", ".jinja"})
"""Files that change answers, beside the weights."""

MOST_VOCABULARY_BYTES = 512_000_000
"""Larger files are none of words."""

MOST_FILES = 10_000
"""A folder of more files is no checkpoint; published ones have some dozen."""

MOST_LAYERS = 1_000

SAMPLE_BYTES = 4096
EDGE_BYTES = 64

SENTENCE_MODULES = (".CLIPModel", ".Transformer")
HARMLESS_MODULES = (".Normalize",)
"""Modules of sentence-transformers after the first that change nothing, as vectors are normalised here anyway."""


FORBIDDEN = {
    "auto_map": ("remote_code", "asks to run code of its own"),
    "transformers_weights": ("other_weights", "names weights that were not checked"),
}
"""Keys that no file of a checkpoint may have at any depth, each with the code and the reason."""

ATTENTION = "attn_implementation"
OWN_ATTENTION = frozenset({"eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"})
"""How attention may be computed: https://huggingface.co/docs/transformers/attention_interface."""

LAYERS = re.compile(r"layers?$|^depths?$|_depths?$|blocks$|^n_layer$")
"""Keys of the configuration that say how often something is built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One folder that has passed every check.

    Attributes:
        name: How to call it in messages.
        folder: Where the weights, ``config.json`` and the processors' files are.
        revision: The commit of a model from the hub; of any other folder an id derived from its content.
        config: The content of ``config.json``.
        input_px: Length of the model's input in pixels, where its processor says it.
        parameters: How many numbers the weights are.
        weights: The file of weights, or the one that names several.
        labels: The closed vocabulary by class number; empty where there is none.
    """

    name: str
    folder: Path
    revision: str
    config: Mapping[str, Any]
    input_px: int | None
    parameters: int
    weights: str = WEIGHTS
    labels: Mapping[int, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The architecture, such as ``"clip"``."""
        return str(self.config.get("model_type", ""))

    @property
    def image_px(self) -> int | None:
        """How long the shorter side of a picture has to be for it: twice its input, where that is known.

        That keeps what a JPEG at reduced scale loses invisible: of CLIP's vectors the cosine to those of the whole
        picture is 0.999999 (12 megapixels at 448 px).
        """
        return 2 * self.input_px if self.input_px else None


def read_checkpoint(
    root: Path, *, name: str | None = None, revision: str | None = None, has_classes: bool = False
) -> Checkpoint:
    """Check a folder and return what it holds.

    Args:
        root: A checkpoint as ``save_pretrained`` writes it, or one of sentence-transformers around CLIP.
        name: How to call it in messages; by default like the folder.
        revision: Its commit, where it has one; by default an id is derived from its content. That covers all
            configuration and vocabulary, and of the weights every tensor's name, shape and first 4 KiB: whatever
            training changes, though not a few numbers changed by hand.
        has_classes: Whether it has to have a closed vocabulary.

    Raises:
        NotReadyError: It is incomplete, has no safetensors weights or no names for its classes, asks for code to be
            run, or names other weights; ``code`` is ``"incomplete"``, ``"no_safetensors"``, ``"no_labels"``,
            ``"remote_code"``, ``"other_weights"`` or ``"not_supported"``.
    """
    with refusing(name or root.name):
        return _read(root, name=name or root.name, revision=revision, has_classes=has_classes)


def check_settings(root: Path, *, name: str, weights: Iterable[str]) -> None:
    """Return if the small files of a checkpoint allow it to be used, so that no weights are fetched in vain.

    Args:
        root: A folder that has everything but the weights.
        name: How to call it in messages.
        weights: The files of weights that there will be, by their path within the folder.

    Raises:
        NotReadyError: It would be refused with its weights as well.
    """
    coming = {_place(root / file) for file in weights}
    with refusing(name):
        folder, _, _ = _read_settings(root)
        find_weights(folder, there=lambda path: _place(path) in coming)


def flaws_of_files(root: Path) -> dict[str, str]:
    """Return what is wrong with weights and tokenizer, by their path within the folder: cut, missing, holes."""
    flaws = {}
    for path in sorted(root.rglob("*.safetensors")):
        try:
            refuse_holes(path, read_header(path))
        except FlawError as flaw:
            flaws[path.relative_to(root).as_posix()] = flaw.why
    with suppress(FlawError), odd_files_are_flaws():  # what is refused for other reasons may be whole all the same
        folder = _inner_folder(root)
        for check in (find_weights, lambda folder: _check_words(folder, read_table(folder / "config.json"))):
            try:
                check(folder)
            except FlawError as flaw:
                flaws |= {(folder / name).relative_to(root).as_posix(): flaw.why for name in flaw.missing}
    return flaws


def layout_of(part: str) -> Sequence[str]:
    """Return the names under which a checkpoint may have a part: ``"weights"`` or ``"processor"``."""
    return (WEIGHTS, INDEX) if part == "weights" else ("preprocessor_config.json", "processor_config.json")


def _read(root: Path, *, name: str, revision: str | None, has_classes: bool) -> Checkpoint:
    folder, config, processor = _read_settings(root)
    headers = [(path, read_header(path)) for path in find_weights(folder)]
    return Checkpoint(
        name=name,
        folder=folder,
        revision=revision or _derived_revision(root, headers),
        config=config,
        input_px=_input_px(processor),
        parameters=sum(count_numbers(header) for _, header in headers),
        weights=next(name for name in layout_of("weights") if (folder / name).is_file()),
        labels=_labels(config, needed=has_classes),
    )


def _labels(config: Mapping[str, Any], *, needed: bool) -> dict[int, str]:
    try:
        return class_names(config)
    except FlawError:
        if needed:
            raise
        return {}


def _read_settings(root: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Return where the model is, and the content of its configuration and of its processor's."""
    _refuse_odd_files(root)
    _refuse_code(root)
    folder = _inner_folder(root)
    config = read_table(folder / "config.json")
    _check_layers(config)
    processor = next((folder / name for name in layout_of("processor") if (folder / name).is_file()), None)
    if processor is None:
        raise FlawError(f"it has none of {', '.join(layout_of('processor'))}")
    _check_words(folder, config)
    return folder, config, read_table(processor)


def _check_words(folder: Path, config: Mapping[str, Any]) -> None:
    """Return if a model that reads or writes words has a tokenizer, and its vocabulary was not cut short."""
    if isinstance(config.get("text_config"), dict) and not any((folder / name).is_file() for name in TOKENIZERS):
        missing = [TOKENIZERS[0]]
        raise FlawError(f"it has no tokenizer: none of {', '.join(TOKENIZERS)}", missing=missing)
    for path in sorted(folder / name for name in VOCABULARIES):
        if path.is_file() and not _is_object(path):
            raise FlawError(f"{path.name} is cut short")


def _is_object(path: Path) -> bool:
    """Tell whether a file begins and ends as a JSON object does; those of words are too large to be parsed for that."""
    try:
        with open_regular(path) as (file, size_bytes):
            first = file.read(EDGE_BYTES)
            file.seek(max(0, size_bytes - EDGE_BYTES))
            return first.lstrip().startswith(b"{") and file.read(EDGE_BYTES).rstrip().endswith(b"}")
    except OSError as error:
        raise unreadable(path, error) from error


def _place(path: Path) -> Path:
    """Return where a file is or will be, whatever it may link to."""
    return path.parent.resolve() / path.name


def _refuse_odd_files(root: Path) -> None:
    """Refuse what transformers would read for ever: pipes and devices, also behind links, and endless small files."""
    for path in _files(root):
        with suppress(OSError):  # links into nothing are told of elsewhere
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode):
                raise FlawError(f"{path.name} is not a regular file")
            most_bytes = _most_bytes(path)
            if path.suffix in PARTS_OF_REVISION and status.st_size > most_bytes:
                raise FlawError(f"{path.name} has more than {most_bytes / 1e6:g} MB")


def _files(root: Path) -> list[Path]:
    files = list(islice(root.rglob("*"), MOST_FILES + 1))
    if len(files) > MOST_FILES:
        raise FlawError(f"it has more than {MOST_FILES:,} files")
    return sorted(files)


def _most_bytes(path: Path) -> int:
    is_settings = path.suffix == ".json" and path.name not in VOCABULARIES
    return MOST_SETTINGS_BYTES if is_settings else MOST_VOCABULARY_BYTES


def _refuse_code(root: Path) -> None:
    """Refuse what would make transformers run code of the checkpoint's author, however deep it is nested.

    Transformers is told ``trust_remote_code=False`` as well, but nested configurations have got round that before
    (CVE-2026-5241). Adapters name a second model, which nobody has checked; ``transformers_weights`` names other
    weights, pickled ones among them, and comes before ``use_safetensors=True``:
    https://github.com/huggingface/transformers/blob/v5.24.0/src/transformers/modeling_utils.py. An attention that is
    not transformers' own is fetched from the hub as native code where ``kernels`` is installed (CVE-2026-4372).
    """
    for path in (part for part in _parts_of_revision(root) if part.suffix == ".json"):
        if path.name == "adapter_config.json":
            raise FlawError(f"{path.name} makes it an adapter of another model", code="remote_code")
        content = None if path.name in VOCABULARIES else read_json(path)
        for key, value in _entries(content):
            if key in FORBIDDEN:
                code, why = FORBIDDEN[key]
                raise FlawError(f"{path.name} {why} ({key})", code=code)
            if ATTENTION in key and isinstance(value, str) and value not in OWN_ATTENTION:
                raise FlawError(f"{path.name} asks to run {value!r} for its attention", code="remote_code")


def _check_layers(config: Mapping[str, Any]) -> None:
    """Refuse a model of so many layers that making them would take all time and memory."""
    for key, value in _entries(config):
        counts = value if isinstance(value, list) else [value]
        if LAYERS.search(key) and any(isinstance(count, int) and count > MOST_LAYERS for count in counts):
            raise FlawError(f"config.json says {key} = {value}, and no model has more than {MOST_LAYERS}")


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """Yield every key of a table with its value, however deep it is nested."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _inner_folder(root: Path) -> Path:
    """Return where the model itself is; sentence-transformers may keep it one folder deeper."""
    if not (root / "modules.json").is_file():
        return root
    modules = read_json(root / "modules.json")
    kinds = [str(module.get("type", "")) for module in modules] if isinstance(modules, list) else []
    if not kinds or not kinds[0].endswith(SENTENCE_MODULES) or not all(k.endswith(HARMLESS_MODULES) for k in kinds[1:]):
        why = f"it is a model of sentence-transformers with the modules {', '.join(kinds) or 'none'}"
        raise FlawError(why, code="not_supported")
    inner = (root / str(modules[0].get("path", ""))).resolve()
    if not inner.is_relative_to(root.resolve()):
        raise FlawError("modules.json points outside the folder", code="remote_code")
    return inner


def _derived_revision(root: Path, headers: Sequence[tuple[Path, Mapping[str, Any]]]) -> str:
    digest = hashlib.sha256()
    for path in _parts_of_revision(root):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        for chunk in chunks_of_regular(path, max_bytes=_most_bytes(path)):
            digest.update(chunk)
    for path, header in headers:
        digest.update(f"{path.name}\n{json.dumps(header, sort_keys=True)}".encode())
        with open_regular(path) as (file, _):
            for entry in tensors(header).values():
                start, end = entry["data_offsets"]
                file.seek(start_of(header) + start)
                digest.update(file.read(min(SAMPLE_BYTES, end - start)))
    return digest.hexdigest()[:12]


def _parts_of_revision(root: Path) -> list[Path]:
    """Return the files that change answers, beside the weights; other files need not even be there."""
    parts = [path for path in _files(root) if path.suffix in PARTS_OF_REVISION and not path.is_dir()]
    gone = [path.name for path in parts if not path.exists()]
    if gone:  # links into nothing, as they stay in the cache where only a blob is deleted
        raise FlawError(f"{', '.join(gone)} is missing")
    return parts


def _input_px(processor: Mapping[str, Any]) -> int | None:
    size = processor.get("image_processor", processor).get("size")
    sides = size.values() if isinstance(size, dict) else [size]
    return max((side for side in sides if isinstance(side, int)), default=None)
