"""A checkpoint on disk: what it holds, which version it is, and whether it may be loaded at all.

This module decides what a folder must and must not contain. It must not know where folders come from, and imports
nothing that runs a model: whatever it refuses was refused before any code of torch or transformers saw it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_backends.config.text_file import decode_text
from vision_backends.errors import NotReadyError
from vision_backends.regular_file import (
    FileTooLargeError,
    NotRegularFileError,
    chunks_of_regular,
    open_regular,
    read_regular,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = [
    "MOST_FILES",
    "Checkpoint",
    "check_settings",
    "flaws_of_files",
    "layout_of",
    "read_checkpoint",
    "read_settings",
]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
"""Large files of words, which configure nothing."""

TOKENIZERS = (
    *("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)
"""Vocabularies, of which a model that knows words has at least one."""

PARTS_OF_REVISION = frozenset({".json", ".txt", ".model", ".jinja"})
"""Files that change answers, beside the weights."""

MOST_HEADER_BYTES = 25_000_000
"""As much as huggingface_hub reads of a table of tensors; those of the largest models have a tenth of it."""

MOST_SETTINGS_BYTES = 32_000_000
MOST_VOCABULARY_BYTES = 512_000_000
"""Larger files are none of settings, or of words."""

MOST_FILES = 10_000
"""A folder of more files is no checkpoint; published ones have some dozen."""

ODD = (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What comes of a file that cannot be read, or whose content is not of the form that its name promises."""

LEAST_TAIL_BYTES = 4096
MOST_TAIL_BYTES = 1 << 20
"""How much of the end of weights must not be zeros: a hundredth, within these bounds; a bias of zeros is shorter."""

MOST_LAYERS = 1_000

SAMPLE_BYTES = 4096
DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}

SENTENCE_MODULES = (".CLIPModel", ".Transformer")
HARMLESS_MODULES = (".Normalize",)
"""Modules of sentence-transformers after the first that change nothing, as vectors are normalised here anyway."""


REMEDIES = {
    "incomplete": "Fetch or save it again.",
    "no_safetensors": "Convert them: model.save_pretrained(...) writes safetensors.",
    "not_supported": "Only models of one CLIP-like module embed images and texts in one space.",
    "other_weights": "Take transformers_weights out of the file, or use another checkpoint.",
    "unreadable": "Let this user read the file.",
    "remote_code": "Use a checkpoint that needs no code of its own.",
}

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
        weight_files: The files of the weights.
    """

    name: str
    folder: Path
    revision: str
    config: Mapping[str, Any]
    input_px: int | None
    parameters: int
    weight_files: tuple[Path, ...]

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

    @property
    def labels(self) -> dict[int, str]:
        """The closed vocabulary by class number; empty where there is none."""
        return {int(number): str(label) for number, label in self.config.get("id2label", {}).items()}


def read_checkpoint(root: Path, *, name: str | None = None, revision: str | None = None) -> Checkpoint:
    """Check a folder and return what it holds.

    Args:
        root: A checkpoint as ``save_pretrained`` writes it, or one of sentence-transformers around CLIP.
        name: How to call it in messages; by default like the folder.
        revision: Its commit, where it has one; by default an id is derived from its content. That covers all
            configuration and vocabulary, and of the weights every tensor's name, shape and first 4 KiB: whatever
            training changes, though not a few numbers changed by hand.

    Raises:
        NotReadyError: It is incomplete, has no safetensors weights, asks for code to be run, or names other weights;
            ``code`` is ``"incomplete"``, ``"no_safetensors"``, ``"remote_code"``, ``"other_weights"`` or
            ``"not_supported"``.
    """
    with _refusing(name or root.name):
        return _read(root, name=name or root.name, revision=revision)


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
    with _refusing(name):
        folder, _, _ = _read_settings(root)
        _weights(folder, there=lambda path: _place(path) in coming)


def flaws_of_files(root: Path) -> dict[str, str]:
    """Return what is wrong with weights and tokenizer, by their path within the folder: cut short, no such file."""
    flaws = {}
    for path in sorted(root.rglob("*.safetensors")):
        try:
            _header(path)
        except _FlawError as flaw:
            flaws[path.relative_to(root).as_posix()] = flaw.why
    with suppress(_FlawError), _odd_files_are_flaws():  # what is refused for other reasons may be whole all the same
        folder = _inner_folder(root)
        for check in (_weights, lambda folder: _check_words(folder, _read_table(folder / "config.json"))):
            try:
                check(folder)
            except _FlawError as flaw:
                flaws |= {(folder / name).relative_to(root).as_posix(): flaw.why for name in flaw.missing}
    return flaws


def layout_of(part: str) -> Sequence[str]:
    """Return the names under which a checkpoint may have a part: ``"weights"`` or ``"processor"``."""
    return (WEIGHTS, INDEX) if part == "weights" else ("preprocessor_config.json", "processor_config.json")


class _FlawError(Exception):
    """Why a folder cannot be used.

    Args:
        why: The reason, to stand after a colon.
        code: Its code, a key of `REMEDIES`.
        missing: Names of files that are not there.
    """

    def __init__(self, why: str, *, code: str = "incomplete", missing: Sequence[str] = ()) -> None:
        super().__init__(why)
        self.why = why
        self.code = code
        self.missing = missing


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Translate a flaw into the error that names the checkpoint and what to do."""
    try:
        with _odd_files_are_flaws():
            yield
    except _FlawError as flaw:
        message = f"The checkpoint {name} cannot be used: {flaw.why}."
        raise NotReadyError(message, remedy=REMEDIES[flaw.code], code=flaw.code) from flaw.__cause__


@contextmanager
def _odd_files_are_flaws() -> Iterator[None]:
    """Translate what comes of a file that is not what its name promises."""
    try:
        yield
    except ODD as error:
        why = f"a file of it is not what its name promises ({type(error).__name__}: {error})"
        raise _FlawError(why) from error


def _read(root: Path, *, name: str, revision: str | None) -> Checkpoint:
    folder, config, processor = _read_settings(root)
    headers = [(path, _header(path)) for path in _weights(folder)]
    return Checkpoint(
        name=name,
        folder=folder,
        revision=revision or _derived_revision(root, headers),
        config=config,
        input_px=_input_px(processor),
        parameters=sum(count for _, header in headers for count in _counts(header)),
        weight_files=tuple(path for path, _ in headers),
    )


def _read_settings(root: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Return where the model is, and the content of its configuration and of its processor's."""
    _refuse_odd_files(root)
    _refuse_code(root)
    folder = _inner_folder(root)
    config = _read_table(folder / "config.json")
    _check_layers(config)
    processor = next((folder / name for name in layout_of("processor") if (folder / name).is_file()), None)
    if processor is None:
        raise _FlawError(f"it has none of {', '.join(layout_of('processor'))}")
    _check_words(folder, config)
    return folder, config, _read_table(processor)


def _check_words(folder: Path, config: Mapping[str, Any]) -> None:
    """Return if a model that reads or writes words has a tokenizer, and its vocabulary was not cut short."""
    if isinstance(config.get("text_config"), dict) and not any((folder / name).is_file() for name in TOKENIZERS):
        missing = [TOKENIZERS[0]]
        raise _FlawError(f"it has no tokenizer: none of {', '.join(TOKENIZERS)}", missing=missing)
    for path in sorted(folder / name for name in VOCABULARIES):
        if path.is_file():
            content = read_settings(path).strip()
            if not (content.startswith("{") and content.endswith("}")):
                raise _FlawError(f"{path.name} is cut short")


def _refuse_odd_files(root: Path) -> None:
    """Refuse what transformers would read for ever: pipes and devices, also behind links, and endless small files."""
    for path in _files(root):
        with suppress(OSError):  # links into nothing are told of elsewhere
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode):
                raise _FlawError(f"{path.name} is not a regular file")
            most_bytes = _most_bytes(path)
            if path.suffix in PARTS_OF_REVISION and status.st_size > most_bytes:
                raise _FlawError(f"{path.name} has more than {most_bytes / 1e6:g} MB")


def _files(root: Path) -> list[Path]:
    files = list(islice(root.rglob("*"), MOST_FILES + 1))
    if len(files) > MOST_FILES:
        raise _FlawError(f"it has more than {MOST_FILES:,} files")
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
            raise _FlawError(f"{path.name} makes it an adapter of another model", code="remote_code")
        content = None if path.name in VOCABULARIES else _read_json(path)
        for key, value in _entries(content):
            if key in FORBIDDEN:
                code, why = FORBIDDEN[key]
                raise _FlawError(f"{path.name} {why} ({key})", code=code)
            if ATTENTION in key and isinstance(value, str) and value not in OWN_ATTENTION:
                raise _FlawError(f"{path.name} asks to run {value!r} for its attention", code="remote_code")


def _check_layers(config: Mapping[str, Any]) -> None:
    """Refuse a model of so many layers that making them would take all time and memory."""
    for key, value in _entries(config):
        counts = value if isinstance(value, list) else [value]
        if LAYERS.search(key) and any(isinstance(count, int) and count > MOST_LAYERS for count in counts):
            raise _FlawError(f"config.json says {key} = {value}, and no model has more than {MOST_LAYERS}")


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
    modules = _read_json(root / "modules.json")
    kinds = [str(module.get("type", "")) for module in modules] if isinstance(modules, list) else []
    if not kinds or not kinds[0].endswith(SENTENCE_MODULES) or not all(k.endswith(HARMLESS_MODULES) for k in kinds[1:]):
        why = f"it is a model of sentence-transformers with the modules {', '.join(kinds) or 'none'}"
        raise _FlawError(why, code="not_supported")
    inner = (root / str(modules[0].get("path", ""))).resolve()
    if not inner.is_relative_to(root.resolve()):
        raise _FlawError("modules.json points outside the folder", code="remote_code")
    return inner


def _weights(folder: Path, *, there: Callable[[Path], bool] = Path.is_file) -> list[Path]:
    """Return the files of weights, all of which are there; of several the index says which there must be."""
    if there(folder / WEIGHTS):
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        named = set(_read_table(folder / INDEX).get("weight_map", {}).values())
        if any("/" in name or "\\" in name or not name.endswith(".safetensors") for name in named):
            raise _FlawError(f"{INDEX} names files other than safetensors beside it", code="remote_code")
        missing = sorted(name for name in named if not there(folder / name))
        if missing or not named:
            raise _FlawError(f"{', '.join(missing) or 'every shard'} is missing", missing=missing)
        return [folder / name for name in sorted(named)]
    pickled = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickled:
        why = f"its weights are pickled ({pickled[0]}), and loading those could run anything"
        raise _FlawError(why, code="no_safetensors", missing=[WEIGHTS])
    raise _FlawError(f"there is no {WEIGHTS}", missing=[WEIGHTS])


def _place(path: Path) -> Path:
    """Return where a file is or will be, whatever it may link to."""
    return path.parent.resolve() / path.name


def _header(path: Path) -> dict[str, Any]:
    """Return a file's table of tensors: https://github.com/huggingface/safetensors#format."""
    try:
        with open_regular(path) as (file, size_bytes):
            (length,) = struct.unpack("<Q", file.read(8))
            if MOST_HEADER_BYTES < length <= size_bytes:
                raise _FlawError(f"{path.name} has a table of tensors of {length:,} bytes, which is absurd")
            header: dict[str, Any] = json.loads(file.read(min(length, MOST_HEADER_BYTES)))
        spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
        if not all(0 <= start <= end for start, end in spans):
            raise _FlawError(f"{path.name} has tensors that end before they begin")
        end = max(end for _, end in spans)
        is_whole = size_bytes == 8 + length + end
        if is_whole and _ends_in_zeros(path, end):
            raise _FlawError(f"{path.name} ends in zeros: it has not arrived whole")
        if is_whole:
            return {**header, "__start__": 8 + length}
    except NotRegularFileError as error:
        raise _FlawError(f"{path.name} is not a regular file") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except (*ODD, struct.error) as error:
        raise _FlawError(f"{path.name} is no safetensors file") from error
    raise _FlawError(f"{path.name} is cut short")


def _ends_in_zeros(path: Path, size_bytes: int) -> bool:
    """Tell whether nothing was written to the end of a file whose room was reserved; trained weights are not zero."""
    tail_bytes = min(size_bytes, MOST_TAIL_BYTES, max(LEAST_TAIL_BYTES, size_bytes // 100))
    with path.open("rb") as file:
        file.seek(-tail_bytes, os.SEEK_END)
        return tail_bytes >= LEAST_TAIL_BYTES and not any(file.read(tail_bytes))


def _tensors(header: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (entry for name, entry in sorted(header.items()) if not name.startswith("__"))


def _counts(header: Mapping[str, Any]) -> Iterator[int]:
    for entry in _tensors(header):
        start, end = entry["data_offsets"]
        yield (end - start) // DTYPE_BYTES.get(entry["dtype"], 1)


def _derived_revision(root: Path, headers: Sequence[tuple[Path, Mapping[str, Any]]]) -> str:
    digest = hashlib.sha256()
    for path in _parts_of_revision(root):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        for chunk in chunks_of_regular(path, max_bytes=_most_bytes(path)):
            digest.update(chunk)
    for path, header in headers:
        digest.update(f"{path.name}\n{json.dumps(header, sort_keys=True)}".encode())
        with open_regular(path) as (file, _):
            for entry in _tensors(header):
                start, end = entry["data_offsets"]
                file.seek(header["__start__"] + start)
                digest.update(file.read(min(SAMPLE_BYTES, end - start)))
    return digest.hexdigest()[:12]


def _parts_of_revision(root: Path) -> list[Path]:
    """Return the files that change answers, beside the weights; other files need not even be there."""
    parts = [path for path in _files(root) if path.suffix in PARTS_OF_REVISION and not path.is_dir()]
    gone = [path.name for path in parts if not path.exists()]
    if gone:  # links into nothing, as they stay in the cache where only a blob is deleted
        raise _FlawError(f"{', '.join(gone)} is missing")
    return parts


def _input_px(processor: Mapping[str, Any]) -> int | None:
    size = processor.get("image_processor", processor).get("size")
    sides = size.values() if isinstance(size, dict) else [size]
    return max((side for side in sides if isinstance(side, int)), default=None)


def read_settings(path: Path) -> str:
    """Return the text of a file of settings. Errors as `read_regular`; ValueError where it is no text."""
    return decode_text(read_regular(path, max_bytes=MOST_SETTINGS_BYTES))


def _read_json(path: Path) -> Any:  # noqa: ANN401 — whatever the file holds
    try:
        return json.loads(read_settings(path))
    except (FileTooLargeError, NotRegularFileError) as error:
        raise _FlawError(f"{path.name} cannot be read: {error}") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise _FlawError(f"{path.name} is not valid JSON") from error


def _unreadable(path: Path, error: OSError) -> _FlawError:
    if isinstance(error, FileNotFoundError):
        return _FlawError(f"{path.name} is missing", missing=[path.name])
    return _FlawError(f"{path.name} cannot be read: {error.strerror or error}", code="unreadable")


def _read_table(path: Path) -> dict[str, Any]:
    table = _read_json(path)
    if not isinstance(table, dict):
        raise _FlawError(f"{path.name} is no JSON object")
    return table
