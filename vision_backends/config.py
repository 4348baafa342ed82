"""Where settings come from: vision.toml, then VISION_* and OPENAI_* variables over it.

This module decides what the core's own keys are and how a bad one is reported; it is the only reader of the
environment. It must not know any backend: the keys of a backend's table are its constructor's keywords.
"""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import os
import tomllib
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, create_model
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["DEFAULT_LADDER", "CacheSettings", "ImageSettings", "Settings", "load_settings", "parse_table"]

DEFAULT_LADDER = ("openai", "local", "embedded")

CONFIG_FILE = "vision.toml"

OPENAI_VARIABLES = {
    "api_key": "OPENAI_API_KEY",
    "base_url": "OPENAI_BASE_URL",
    "organization": "OPENAI_ORG_ID",
    "project": "OPENAI_PROJECT_ID",
}
"""The names that OpenAI's own SDK reads, for keys of ``[openai]`` that nothing else sets."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskLadders(_Table):
    """One ladder per task; a task that is left out takes the default."""

    describe: tuple[str, ...] = DEFAULT_LADDER
    embed: tuple[str, ...] = DEFAULT_LADDER
    embed_text: tuple[str, ...] = DEFAULT_LADDER
    detect: tuple[str, ...] = DEFAULT_LADDER


class CacheSettings(_Table):
    """The ``[cache]`` table.

    Attributes:
        enabled: Whether answers are kept.
        max_bytes: Room for them; the least recently used go first.
    """

    enabled: bool = True
    max_bytes: PositiveInt = 500_000_000


class ImageSettings(_Table):
    """The ``[images]`` table: the limits of what is read.

    Attributes:
        max_bytes: Largest file.
        max_pixels: Largest width × height.
    """

    max_bytes: PositiveInt = 50_000_000
    max_pixels: PositiveInt = 40_000_000


class Settings(BaseSettings):
    """Everything that vision.toml may hold.

    Attributes:
        ladder: Backends, best first: built-in names, entry points or ``package.module:Class``.
        deadline_s: Seconds that a call may take altogether.
        state: Where cache, ledger and gates live: ``"auto"`` (the user's cache folder), ``"memory"`` or a path.
        cache: The ``[cache]`` table.
        images: The ``[images]`` table.
        openai: The ``[openai]`` table, as keywords of the backend.
        local: The ``[local]`` table, likewise.
        embedded: The ``[embedded]`` table, likewise.
        backends: ``[backends.<name>]`` tables of other backends, likewise.
    """

    model_config = SettingsConfigDict(
        env_prefix="VISION_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    ladder: TaskLadders | tuple[str, ...] = DEFAULT_LADDER
    deadline_s: PositiveFloat = 60.0
    state: Literal["auto", "memory"] | Path = "auto"
    cache: CacheSettings = CacheSettings()
    images: ImageSettings = ImageSettings()
    openai: dict[str, Any] = Field(default_factory=dict, repr=False)
    local: dict[str, Any] = Field(default_factory=dict)
    embedded: dict[str, Any] = Field(default_factory=dict)
    backends: dict[str, dict[str, Any]] = Field(default_factory=dict, repr=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 — pydantic-settings fixes the signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, which comes in as keywords."""
        return env_settings, init_settings

    @property
    def state_file(self) -> Path | None:
        """Where the state is kept; None means in memory."""
        if self.state == "memory":
            return None
        if isinstance(self.state, Path):
            return self.state.expanduser()
        from platformdirs import user_cache_path

        return user_cache_path("vision-backends") / "state.sqlite"

    def table(self, name: str) -> dict[str, Any]:
        """Return the table of a backend, empty where the file has none."""
        own = {"openai": self.openai, "local": self.local, "embedded": self.embedded}
        return own.get(name, self.backends.get(name, {}))


def load_settings(path: str | os.PathLike[str] | None = None) -> Settings:
    """Read the configuration.

    Args:
        path: The file; by default ``VISION_CONFIG`` or ``vision.toml`` in the working directory, if there.

    Raises:
        ConfigError: The file is missing or no TOML, or a key or value has no meaning.
    """
    file = find_config(path)
    table: dict[str, Any] = {}
    if file is not None:
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The configuration {str(file)!r} cannot be read: {error}.") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"The configuration {str(file)!r} is no valid TOML: {error}.") from error
    try:
        settings = Settings(**table)
    except ValidationError as error:
        raise _config_error(error, str(file or "the VISION_ variables"), tuple(Settings.model_fields)) from None
    found = {key: os.environ[name] for key, name in OPENAI_VARIABLES.items() if os.environ.get(name)}
    return settings.model_copy(update={"openai": found | settings.openai})


def find_config(path: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the configuration file that `load_settings` would read, or None when there is none."""
    named = path or os.environ.get("VISION_CONFIG")
    if named:
        return Path(named)
    file = Path(CONFIG_FILE)
    return file if file.is_file() else None


def parse_table(make: Callable[..., Any], table: Mapping[str, Any], *, section: str) -> dict[str, Any]:
    """Check a table against the keyword arguments of whatever it configures.

    Args:
        make: A class or function whose keyword parameters are annotated.
        table: Values as TOML or environment variables gave them; ``"20"`` becomes 20.0 where a float is wanted.
        section: How to call the table in error messages, such as ``"[openai]"``.

    Returns:
        Keywords for ``make``, only those that the table sets.

    Raises:
        ConfigError: A key is unknown or a value has the wrong type; names the nearest valid key.
    """
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.kind in {parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    }
    target = make.__init__ if inspect.isclass(make) else make
    hints = typing.get_type_hints(target, localns=dict(vars(collections.abc)))
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in parameters.items()
    }
    forbid = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True, protected_namespaces=()
    )
    model = create_model("Table", __config__=forbid, **fields)
    try:
        parsed = model(**table)
    except ValidationError as error:
        raise _config_error(error, section, tuple(fields)) from None
    return {name: getattr(parsed, name) for name in parsed.model_fields_set}


def _config_error(error: ValidationError, where: str, valid: tuple[str, ...]) -> ConfigError:
    """Say which key is wrong, never its value: it may be a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), valid, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Valid keys: {', '.join(sorted(valid))}."
        return ConfigError(f"{where} has an unknown key {key!r}.", remedy=remedy)
    return ConfigError(f"{where} has a bad value for {key!r}: {first['msg']}.")
