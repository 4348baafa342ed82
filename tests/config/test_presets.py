"""What is known of servers that speak OpenAI's language, and to which of them a key goes."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest

from vision_backends.backends.openai.dialect import FIELDS
from vision_backends.backends.openai.errors import RULES
from vision_backends.config.loading import read_configuration
from vision_backends.config.presets import find_preset, presets
from vision_backends.config.web_address import is_web_address, origin_of
from vision_backends.errors import ConfigError

ROOT = Path(__file__).parents[2]

PRESETS = presets()

NAMES = [
    *("openai", "azure", "openrouter", "gemini", "groq", "mistral", "together", "fireworks", "dashscope", "deepseek"),
    *("xai", "huggingface", "ollama", "lmstudio", "llamacpp", "vllm", "sglang", "tgi", "localai", "infinity"),
    *("github", "litellm", "transformers"),
]

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def without_keys(monkeypatch):
    """No variable of any server's maker."""
    for preset in PRESETS.values():
        for name in (*preset.key_variables, preset.address_variable or "OPENAI_API_KEY"):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def configure(tmp_path):
    """Read the user's own file and a named one; returns the configuration."""

    def configure(*, named: str, own: str = ""):
        folder = tmp_path / "config"
        folder.mkdir(exist_ok=True)
        (folder / "named.toml").write_text(named, encoding="utf-8")
        home = Path.home() / ".config" / "vision-backends"
        home.mkdir(parents=True, exist_ok=True)
        (home / "vision.toml").write_text(own, encoding="utf-8")
        return read_configuration(folder / "named.toml")

    return configure


def test_there_is_one_for_each_server_that_people_ask_for():
    """In the order of the documentation."""
    assert list(PRESETS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_row_says_what_it_claims_and_where_from(name):
    """With a source and its day, an encrypted address or one on this machine, and words that others know."""
    preset = PRESETS[name]
    assert preset.source.startswith("https://")
    assert date(2025, 1, 1) < preset.seen <= date(2026, 12, 31)
    assert preset.base_url is None or (is_web_address(preset.base_url) and not preset.base_url.endswith("/"))
    assert preset.base_url is None or preset.is_on_this_machine or preset.base_url.startswith("https://")
    assert {*preset.chat_refuses, *preset.embeddings_refuse} <= FIELDS.keys()
    assert set(preset.error_codes.values()) <= {rule.error.kind for rule in RULES}
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", variable) for variable in preset.key_variables)
    assert not preset.needs_key or preset.key_variables
    re.compile(preset.sees or "")


def test_a_name_that_is_misspelt_is_told_the_nearest():
    """Or all there are."""
    with pytest.raises(ConfigError, match="Did you mean 'ollama'"):
        find_preset("Olama")
    with pytest.raises(ConfigError, match=r"There are: openai, azure, .*base_url"):
        find_preset("zzz")


class TestKeysOfMakers:
    """A variable that a server's maker reads goes to that server only."""

    @pytest.mark.parametrize("name", [name for name in NAMES if PRESETS[name].base_url and PRESETS[name].key_variables])
    def test_it_is_read_for_the_server_itself_and_no_other(self, name):
        """Not where the preset is only the manner of another server."""
        preset = PRESETS[name]
        assert preset.key_variable_for(preset.origin) == preset.key_variables[0]
        for url in ("https://x.test/v1", "http://127.0.0.1:9/v1", "https://api.openai.com.evil.test/v1"):
            assert preset.key_variable_for(origin_of(url)) is None
        assert preset.key_variable_for(None) is None

    def test_the_first_that_is_set_is_read(self, monkeypatch):
        """Where a maker has several names."""
        preset = PRESETS["gemini"]
        monkeypatch.setenv("GOOGLE_API_KEY", KEY)
        assert preset.key_variable_for(preset.origin) == "GOOGLE_API_KEY"
        monkeypatch.setenv("GEMINI_API_KEY", KEY)
        assert preset.key_variable_for(preset.origin) == "GEMINI_API_KEY"

    @pytest.mark.parametrize(
        ("name", "variable", "url"),
        [
            ("openai", "OPENAI_BASE_URL", "https://api.openai.com/v1"),
            ("azure", "AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com/openai/v1"),
        ],
    )
    def test_a_key_that_comes_with_an_address_is_for_that(self, monkeypatch, name, variable, url):
        """As the maker's own SDK reads the two."""
        preset = PRESETS[name]
        assert preset.key_variable_for(origin_of(url)) == preset.key_variables[0]
        monkeypatch.setenv(variable, "https://another.test/openai")
        assert preset.key_variable_for(origin_of(url)) is None
        assert preset.key_variable_for(origin_of("https://another.test")) == preset.key_variables[0]

    def test_it_does_not_leave_this_machine_in_the_clear(self, monkeypatch):
        """A proxy would read it."""
        preset = PRESETS["vllm"]
        monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
        monkeypatch.setenv("NO_PROXY", "")
        assert preset.key_variable_for(preset.origin) is None
        monkeypatch.setenv("NO_PROXY", "localhost")
        assert preset.key_variable_for(preset.origin) == "VLLM_API_KEY"


class TestKeysInFiles:
    """A key goes to the server of the preset beside it, and a preset names a server as an address does."""

    @pytest.mark.parametrize(
        ("table", "server"),
        [
            ('preset = "openrouter"', "https://openrouter.ai"),
            ('preset = "ollama"', "http://localhost:11434"),
            ('preset = "vllm"\nbase_url = "http://gpu.test:8000/v1"', "http://gpu.test:8000"),
            ('preset = "azure"\nbase_url = "https://x.openai.azure.com/openai/v1"', "https://x.openai.azure.com"),
            ('preset = "azure"', "None"),
            ('preset = "nonsense"', "https://api.openai.com"),
        ],
    )
    def test_the_server_of_a_rung_is_that_of_its_preset(self, configure, table, server):
        """Unless it has an address."""
        settings = configure(named=f'[backends.x]\nkind = "openai"\n{table}').settings
        assert str(settings.server_of("x")) == server

    @pytest.mark.parametrize("first", ['preset = "openrouter"', 'base_url = "https://openrouter.ai/api/v1"'])
    @pytest.mark.parametrize("rung", ["[openai]", '[backends.x]\nkind = "openai"'])
    def test_it_goes_to_no_other_that_a_later_place_names(self, configure, first, rung):
        """Be it by an address or by a preset."""
        table = ("openai",) if rung == "[openai]" else ("backends", "x")
        for second in (
            'base_url = "https://x.test/v1"',
            'preset = "groq"\nbase_url = "https://api.groq.com/openai/v1"',
        ):
            found = configure(own=f'{rung}\n{first}\napi_key = "{KEY}"', named=f"{rung}\n{second}")
            assert "api_key" not in found.settings.table(table[-1])
            assert [(each.table, each.keys) for each in found.withheld] == [(table, ("api_key",))]
        found = configure(own=f'{rung}\n{first}\napi_key = "{KEY}"', named=f'{rung}\npreset = "openrouter"')
        assert found.settings.table(table[-1])["api_key"] == KEY

    def test_a_later_preset_does_not_draw_the_key_of_another(self, configure):
        """Two presets are two servers."""
        found = configure(
            own=f'[backends.x]\nkind = "openai"\npreset = "groq"\napi_key = "{KEY}"',
            named='[backends.x]\npreset = "openrouter"',
        )
        assert "api_key" not in found.settings.table("x")
        assert found.told_of(found.withheld[0]).endswith(
            "is not sent to https://openrouter.ai: it was given for https://api.groq.com"
        )

    def test_one_without_a_server_goes_to_the_preset_that_another_place_names(self, configure, monkeypatch):
        """As it goes to an address."""
        monkeypatch.setenv("VISION_BACKENDS__X__API_KEY", KEY)
        found = configure(named='[backends.x]\nkind = "openai"\npreset = "openrouter"\nmodel = "m"')
        assert found.settings.table("x")["api_key"] == KEY

    def test_openais_variables_are_not_for_another_preset(self, configure, monkeypatch):
        """They lie in many environments."""
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
        monkeypatch.setenv("OPENAI_BASE_URL", "https://x.test/v1")
        assert configure(named='[openai]\npreset = "ollama"').settings.table("openai") == {"preset": "ollama"}
        monkeypatch.delenv("OPENAI_BASE_URL")
        assert configure(named='[openai]\npreset = "openai"').settings.table("openai")["api_key"] == KEY
        monkeypatch.setenv("VISION_OPENAI__PRESET", "groq")
        assert "api_key" not in configure(named='[openai]\npreset = "openai"').settings.table("openai")


def test_a_file_that_was_found_may_name_no_preset(tmp_path, monkeypatch):
    """It would choose who sees the picture."""
    monkeypatch.chdir(tmp_path)
    for line in ('preset = "openrouter"', "private = true"):
        Path("vision.toml").write_text(f"[openai]\n{line}\n", encoding="utf-8")
        with pytest.raises(ConfigError, match="may not set 'openai\\."):
            read_configuration()


def test_the_documentation_has_the_table_of_presets():
    """Row by row what the data say."""
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `\"(\w+)\"` \|.*$", text, re.MULTILINE)
    assert rows == NAMES
    for preset in PRESETS.values():
        assert table_row(preset) in text


def table_row(preset) -> str:
    """Return the row of the documentation for a preset."""
    where = f"`{preset.base_url}`" if preset.base_url else "`base_url`, yours"
    key = ", ".join(f"`{name}`" for name in preset.key_variables) or "–"
    looks = {None: "no", "": "yes"}.get(preset.sees, f"models with `{preset.sees}` in the name")
    refused = [*preset.chat_refuses, *preset.embeddings_refuse]
    notes = [f"without {', '.join(f'`{name}`' for name in refused)}"] if refused else []
    notes += [f"{preset.texts_per_call} texts per request"] if preset.texts_per_call else []
    notes += [f"has been shut down since {preset.retired}"] if preset.retired else []
    key += "" if preset.needs_key or not preset.key_variables else " (if it asks for one)"
    source = f"[{preset.seen}]({preset.source})"
    cells = [f'`"{preset.name}"`', preset.title, where, key, looks, preset.embeds, "; ".join(notes) or "–", source]
    return f"| {' | '.join(cells)} |"


def test_the_rows_are_read_from_a_file_of_data():
    """Which whoever adds a server edits, and nothing else."""
    path = ROOT / "vision_backends" / "config" / "presets.toml"
    assert list(tomllib.loads(path.read_text(encoding="utf-8"))) == NAMES
