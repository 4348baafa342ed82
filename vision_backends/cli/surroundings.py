"""What there is to build a ladder of: keys, servers on this machine, memory, GPUs, extras and models.

This module decides where ``vision init`` looks, and for how long. It asks nothing beyond this machine, sends no key and
no picture, and must not know what is made of what it finds.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_backends.clock import SYSTEM_CLOCK, Deadline
from vision_backends.config.presets import presets
from vision_backends.config.web_address import origin_of
from vision_backends.engine.machine_limits import free_memory
from vision_backends.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vision_backends.backends.model_cards import ModelCard
    from vision_backends.config.presets import Preset
    from vision_backends.config.web_address import Origin

__all__ = ["Served", "Surroundings", "look_around", "looks_at_images"]

LOOKED_FOR = ("ollama", "lmstudio", "llamacpp", "vllm")
"""The presets whose usual addresses are tried; those of others belong to any program."""

OWNERS = {"vllm": "vllm", "llamacpp": "llamacpp", "organization_owner": "lmstudio", "library": "ollama"}
"""Who a model of ``/v1/models`` is said to be owned by → the preset of the server that says so."""

REQUEST_S = 1.0
LOOK_S = 3.0
"""How long one request, and the whole look, may take: what is here answers in milliseconds."""

MAX_BYTES = 1_000_000
MAX_NAME_CHARS = 200

SEEING = re.compile(
    r"vl(?![a-z])|vision|llava|moondream|pixtral|minicpm-?[vo]|gemma-?[34](?!n)|llama-?4|molmo|idefics|internvl|smolvlm"
    r"|multimodal|glm-?4(\.\d+)?v|mistral-small-?3\.[12]|ministral-3|granite.*vision|deepseek-ocr",
    re.IGNORECASE,
)
"""Names of open models that look at images; what only seems to is found out by the first request."""

SEEING_FAMILIES = frozenset({"clip", "mllama"})
"""What Ollama calls the parts of a model that look at images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server on this machine that answered.

    Attributes:
        url: Where its API begins.
        preset: What it is, as far as its answers tell.
        models: The names of its models, those that look at images first.
        seeing: How many of them do, as far as their names tell.
    """

    url: str
    preset: Preset | None
    models: tuple[str, ...]
    seeing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What was found.

    Attributes:
        keys: Presets of which a key is in the environment, each with the variable that says so.
        servers: Servers on this machine.
        silent: The addresses at which nothing answered.
        gpu: What could compute besides the CPU; None where nothing is seen.
        free_bytes: Memory that is free; None where nobody says.
        extras: Whether the packages of each extra are installed.
        cached: Cards of local models that are on this machine.
    """

    keys: tuple[tuple[Preset, str], ...] = ()
    servers: tuple[Served, ...] = ()
    silent: tuple[str, ...] = ()
    gpu: str | None = None
    free_bytes: int | None = None
    extras: dict[str, bool] = field(default_factory=dict)
    cached: tuple[ModelCard, ...] = ()


def look_around(also: Sequence[str] = ()) -> Surroundings:
    """Look at what is here.

    Args:
        also: Further addresses of servers on this machine.

    Raises:
        InvalidRequestError: An address is none of this machine.
    """
    known = presets()
    urls = dict.fromkeys([*map(_address, also), *filter(None, (_usual_address(known[name]) for name in LOOKED_FOR))])
    found = _ask_all([*urls])
    free = free_memory()
    extras = {"local": _has("torch", "transformers", "sentence_transformers"), "ocr": _has("rapidocr")}
    return Surroundings(
        keys=tuple(filter(None, map(_with_key, known.values()))),
        servers=_distinct([served for served in found.values() if served]),
        silent=tuple(url for url in urls if found.get(url) is None),
        gpu=_gpu(),
        free_bytes=None if free is None else free.size_bytes,
        extras=extras,
        cached=_cached_models() if extras["local"] else (),
    )


def _distinct(servers: Sequence[Served]) -> tuple[Served, ...]:
    """Return servers without those that are the same under another name, such as ``localhost`` and ``127.0.0.1``."""
    ports = {(origin.port, served.models): served for served in reversed(servers) if (origin := origin_of(served.url))}
    return tuple(served for served in servers if served in ports.values())


def looks_at_images(name: str) -> bool:
    """Return whether a model of this name looks at images, as far as names of open models tell."""
    return SEEING.search(name) is not None


def _with_key(preset: Preset) -> tuple[Preset, str] | None:
    if preset.retired is not None and datetime.now(UTC).date() >= preset.retired:
        return None
    has_address = preset.base_url is not None or os.environ.get(preset.address_variable or "")
    if not has_address or preset.is_on_this_machine:
        return None
    names = preset.key_variables
    if preset.name == "openai":
        names = ("OPENAI_BASE_URL", *names) if _is_elsewhere() else (*names, "VISION_OPENAI__API_KEY")
    variable = next((name for name in names if os.environ.get(name)), None)
    return None if variable is None else (preset, variable)


def _is_elsewhere() -> bool:
    """Return whether OpenAI's own variable names another server, which needs no key then."""
    server = origin_of(os.environ.get("OPENAI_BASE_URL", "").strip())
    return server is not None and not server.is_openai


def _address(url: str) -> str:
    """Return an address as it is asked, with ``/v1`` where no path is given."""
    origin = origin_of(url)
    if origin is None or not origin.is_this_machine or origin.scheme != "http":
        raise InvalidRequestError(
            f"{url!r} is not the http:// address of a server on this machine.",
            remedy="Only those are looked at; write others into the file: [backends.NAME] base_url = …",
        )
    return url.rstrip("/") if url.rstrip("/").count("/") > 2 else f"{url.rstrip('/')}/v1"


def _usual_address(preset: Preset) -> str | None:
    """Return where a server usually is, or where ``OLLAMA_HOST`` says that it is, if that is on this machine."""
    host = os.environ.get("OLLAMA_HOST", "").strip() if preset.name == "ollama" else ""
    if not host:
        return preset.base_url
    origin = origin_of(host if "://" in host else f"http://{host}")
    if origin is None:
        return preset.base_url
    port = origin.port if ":" in host.rpartition("//")[2] else 11434
    return f"http://localhost:{port}/v1" if origin.is_this_machine or origin.host == "0.0.0.0" else None  # noqa: S104


def _ask_all(urls: Sequence[str]) -> dict[str, Served | None]:
    """Ask all servers at the same time; whoever takes too long is as good as not there."""
    found: dict[str, Served | None] = {}

    def ask(url: str) -> None:
        found[url] = _ask(url)

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    deadline = Deadline(SYSTEM_CLOCK, LOOK_S)
    for thread in threads:
        thread.join(max(deadline.remaining_s, 0.0))
    return {url: found.get(url) for url in urls}


def _ask(url: str) -> Served | None:
    origin = origin_of(url)
    if origin is None:
        return None
    path = url.partition("://")[2].partition("/")[2]
    listed = _models_in(_get(origin, f"/{path}/models"), "data", "id")
    if not listed:
        return None
    tags = _models_in(_get(origin, "/api/tags"), "models", "name")
    owner = next(iter(listed.values())).get("owned_by")
    name = "ollama" if tags else OWNERS.get(str(owner))
    seeing = [model for model in listed if looks_at_images(model) or _has_eyes(tags.get(model, {}))]
    others = [model for model in listed if model not in seeing]
    return Served(url=url, preset=presets().get(name or ""), models=(*seeing, *others), seeing=len(seeing))


def _has_eyes(tag: dict[str, Any]) -> bool:
    """Return whether Ollama lists a part of a model that looks at images."""
    details = tag.get("details")
    families = details.get("families") if isinstance(details, dict) else None
    return not SEEING_FAMILIES.isdisjoint(_texts(families)) or "vision" in _texts(tag.get("capabilities"))


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _models_in(reply: object, place: str, key: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a list of models by their names; what is no such list is empty."""
    rows = reply.get(place) if isinstance(reply, dict) else None
    found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {
        name: row
        for row in found
        if isinstance(name := row.get(key), str) and name.isprintable() and 0 < len(name) <= MAX_NAME_CHARS
    }


def _get(origin: Origin, path: str) -> object:
    """Return the JSON at a path of a server on this machine; None for anything else that it says. No proxy is asked."""
    connection = http.client.HTTPConnection(origin.host, origin.port, timeout=REQUEST_S)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        reply = connection.getresponse()
        body = reply.read(MAX_BYTES + 1)
        return json.loads(body) if reply.status == http.client.OK and len(body) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _has(*modules: str) -> bool:
    """Return whether modules are installed, without importing them, which takes seconds."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


def _gpu() -> str | None:
    """Return the name of a GPU, as far as that is known without importing torch."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "Apple GPU"
    command = shutil.which("nvidia-smi")
    if command is not None:
        try:
            asked = [command, "--query-gpu=name,memory.total", "--format=csv,noheader"]
            said = subprocess.run(asked, capture_output=True, text=True, timeout=LOOK_S, check=False)  # noqa: S603
        except (OSError, subprocess.SubprocessError):
            return None
        if said.returncode == 0 and said.stdout.strip():
            return said.stdout.splitlines()[0].strip()
    return "AMD GPU" if Path("/dev/kfd").exists() else None


def _cached_models() -> tuple[ModelCard, ...]:
    from vision_backends.backends.local.hub.hub import HuggingFaceHub
    from vision_backends.backends.local.hub.source import Source
    from vision_backends.backends.local.installed import find_holding
    from vision_backends.backends.model_cards import model_cards
    from vision_backends.errors import VisionError

    hub, found = HuggingFaceHub(), []
    for card in model_cards():
        if card.file is None:
            try:
                held = find_holding(Source.parse(card.name), hub)
            except VisionError:
                continue
            found += [card] if held.state == "installed" else []
    return tuple(found)
