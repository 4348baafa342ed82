"""Where settings come from: vision.toml, then VISION_* and OPENAI_* variables over it.

This module decides what the core's own keys are and how a bad one is reported; it is the only reader of the
environment. It must not know any backend: the keys of a backend's table are its constructor's keywords.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from vision_backends.arguments import shown
from vision_backends.config.text_file import read_text
from vision_backends.config.validation import HiddenTable, unknown_key, wrong_table
from vision_backends.config.web_address import is_web_address
from vision_backends.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "DEFAULT_LADDER",
    "CacheSettings",
    "ImageSettings",
    "Settings",
    "find_config",
    "load_settings",
    "variables_in_use",
]

DEFAULT_LADDER = ("openai", "local", "embedded")

CONFIG_FILE = "vision.toml"

ENV_PREFIX = "VISION_"

OPENAI_VARIABLES = {
    "api_key": "OPENAI_API_KEY",
    "base_url": "OPENAI_BASE_URL",
    "organization": "OPENAI_ORG_ID",
    "project": "OPENAI_PROJECT_ID",
}
"""The names that OpenAI's own SDK reads; used for keys of ``[openai]`` that are not set otherwise."""


def _without_repeats(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("it names a backend twice")
    return names


Names = Annotated[tuple[str, ...], AfterValidator(_without_repeats)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskLadders(_Table):
    """One ladder per task; a task that is left out takes the default."""

    describe: Names = DEFAULT_LADDER
    embed: Names = DEFAULT_LADDER
    embed_text: Names = DEFAULT_LADDER
    detect: Names = DEFAULT_LADDER


class CacheSettings(_Table):
    """The ``[cache]`` table.

    Attributes:
        enabled: Whether answers are kept.
        max_bytes: Room for them; the least recently used are evicted first.
        tenant: Who shares the answers of servers, in place of those who have the same key.
    """

    enabled: bool = True
    max_bytes: PositiveInt = 500_000_000
    tenant: Annotated[str, Field(min_length=1)] | None = None


class ImageSettings(_Table):
    """The ``[images]`` table: the limits of what is read.

    Attributes:
        max_bytes: Largest file.
        max_pixels: Largest width × height.
    """

    max_bytes: PositiveInt = 50_000_000
    max_pixels: PositiveInt = 40_000_000


def _web_address(value: SecretStr) -> SecretStr:
    if not is_web_address(value.get_secret_value()):
        raise ValueError("it is not an http:// or https:// address")
    return value


class AlertSettings(_Table):
    """The ``[alerts]`` table: where trouble and recovery are reported, besides the log.

    Attributes:
        webhook: Address that each alert is posted to as JSON, such as an incoming webhook of Slack; a secret.
    """

    webhook: Annotated[SecretStr, AfterValidator(_web_address)] | None = None


class Settings(BaseSettings):
    """Everything that vision.toml may hold.

    Attributes:
        ladder: Backends, best first: built-in names, entry points or ``package.module:Class``.
        deadline_s: Total seconds that a call may take.
        hedge_after_s: When a call also asks the next rung; seconds or ``"p95"``; never by default.
        warm_standby: Whether the first sign of trouble with a rung warms up the next one in the background.
        state: Where cache, ledger and gates live: ``"auto"`` (the user's cache folder), ``"memory"`` or a path.
        cache: The ``[cache]`` table.
        images: The ``[images]`` table.
        alerts: The ``[alerts]`` table.
        openai: The ``[openai]`` table, as keywords of the backend.
        local: The ``[local]`` table, as keywords of the backend.
        embedded: The ``[embedded]`` table, as keywords of the backend.
        backends: ``[backends.<name>]`` tables, as keywords of other backends.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    ladder: TaskLadders | Annotated[Names, Field(min_length=1)] = Field(
        DEFAULT_LADDER, examples=['["openai", "embedded"]']
    )
    deadline_s: PositiveFloat = Field(60.0, allow_inf_nan=False)
    hedge_after_s: PositiveFloat | Literal["p95"] | None = None
    warm_standby: bool = True
    state: Literal["auto", "memory"] | Path = "auto"
    cache: CacheSettings = CacheSettings()
    images: ImageSettings = ImageSettings()
    alerts: AlertSettings = AlertSettings()
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
        """Let the environment override the file, which comes in as keywords."""
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
        return HiddenTable(own.get(name, self.backends.get(name, {})))


def load_settings(path: str | os.PathLike[str] | None = None) -> Settings:
    """Read the configuration.

    Args:
        path: The file; by default ``VISION_CONFIG``, or ``vision.toml`` in the working directory if it exists.

    Raises:
        ConfigError: The file is missing or not valid TOML, or a key, variable or value is not valid.
    """
    file = find_config(path)
    table = HiddenTable() if file is None else _read_toml(file)
    _check_names(table, file)
    try:
        settings = Settings(**table)
    except SettingsError as error:
        variable = ENV_PREFIX + str(error).split('"')[1].upper()
        trouble = ConfigError(
            f"The variable {variable} is not valid JSON.",
            remedy=f"Write a list or table as JSON, or set one key of a table with {variable}__<KEY>.",
        )
    except ValidationError as error:
        trouble = wrong_table(error, Settings, where=lambda keys: _origin(keys, file))
    else:
        found = {key: os.environ[name] for key, name in OPENAI_VARIABLES.items() if os.environ.get(name)}
        return settings.model_copy(update={"openai": found | settings.openai})
    raise trouble  # out here, because the errors above would take the values along, and with them every secret


def find_config(path: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the configuration file that `load_settings` would read, or None when there is none."""
    if path is not None and not isinstance(path, str | os.PathLike):
        raise ConfigError(f"The configuration {shown(path)} is no path.", remedy="Pass the path of a vision.toml.")
    named = path or os.environ.get("VISION_CONFIG")
    if named:
        return Path(named)
    file = Path(CONFIG_FILE)
    return file if file.is_file() else None


def variables_in_use(settings: Settings) -> list[str]:
    """Return the names of the environment variables that have set something in these settings."""
    own = [
        name
        for name, value in sorted(os.environ.items())
        if value
        and name.upper().startswith(ENV_PREFIX)
        and name.upper().removeprefix(ENV_PREFIX).split("__")[0].lower() in Settings.model_fields
    ]
    theirs = [
        name
        for key, name in OPENAI_VARIABLES.items()
        if os.environ.get(name) and settings.openai.get(key) == os.environ[name]
    ]
    return own + theirs


def _read_toml(file: Path) -> HiddenTable:
    try:
        return HiddenTable(tomllib.loads(read_text(file)))
    except OSError as error:
        raise ConfigError(f"The configuration {str(file)!r} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        trouble = "is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        trouble = f"is not valid TOML: {error}"
    raise ConfigError(f"The configuration {str(file)!r} {trouble}.")  # out here: the errors would take the text along


def _check_names(table: Mapping[str, Any], file: Path | None) -> None:
    """Refuse what pydantic-settings would ignore: its own options in the file, misspelt variables.

    A variable that resembles no key of ours belongs to another program.
    """
    for key in table:
        if key.startswith("_"):
            raise unknown_key(key, tuple(Settings.model_fields), where=str(file))
    known = {*Settings.model_fields, "config"}
    for name in os.environ:
        key = name.upper().removeprefix(ENV_PREFIX).split("__")[0].lower()
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        if name.upper().startswith(ENV_PREFIX) and near and key not in known:
            raise ConfigError(f"The variable {name} is unknown.", remedy=f"Did you mean {ENV_PREFIX}{near[0].upper()}?")


def _origin(keys: Sequence[str], file: Path | None) -> str:
    """Name the variable that has set a key, or else the file."""
    variables = {name.upper(): name for name in os.environ}
    for depth in range(len(keys), 0, -1):
        name = variables.get(ENV_PREFIX + "__".join(keys[:depth]).upper())
        if name:
            return f"The variable {name}"
    return str(file or "The configuration")
