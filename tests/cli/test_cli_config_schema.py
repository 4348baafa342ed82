"""``vision config --schema``: the schema by which editors check vision.toml, made from what the code declares."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from vision_backends.config.loading import load_settings
from vision_backends.config.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def check(vision):
    """A check of a text of TOML by the schema; returns the error that fits best, or None."""
    schema = json.loads(vision("config", "--schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    def check(text: str) -> jsonschema.ValidationError | None:
        return jsonschema.exceptions.best_match(validator.iter_errors(tomllib.loads(text)))

    return check


def _examples() -> list[str]:
    """Return the TOML in the documentation that is a configuration."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [block for page in pages for block in re.findall(r"(?ms)^```toml\n(.*?)^```", page.read_text("utf-8"))]
    return [block for block in blocks if tomllib.loads(block).keys() <= Settings.model_fields.keys()]


def test_every_example_of_the_documentation_passes(check):
    """There are many, and none is another program's file."""
    examples = _examples()
    assert len(examples) > 5
    assert {block: error.message for block in examples if (error := check(block))} == {}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("deadline = 1", []),
        ("deadline_s = 0", ["deadline_s"]),
        ('deadline_s = "soon"', ["deadline_s"]),
        ("ladder = []", ["ladder"]),
        ('ladder = ["openai", "openai"]', ["ladder"]),
        ("ladder.describes = ['openai']", ["ladder"]),
        ("[cache]\nenabeld = true", ["cache"]),
        ("[openai]\nmodle = 'x'", ["openai"]),
        ("[openai]\ntimeout_s = 'x'", ["openai", "timeout_s"]),
        ("[openai]\ndetail = 'huge'", ["openai", "detail"]),
        ("[openai]\nkind = 'local'", ["openai", "kind"]),
        ("[openai]\ndaily_budget_usd = -1", ["openai", "daily_budget_usd"]),
        ("[openai]\nclock = 1", ["openai"]),
        ("[local]\ntuning_cache = 'x'", ["local"]),
        ("[local]\nmodel = 'x'", ["local"]),
        ("[backends.local]\nmodel = 'x'", ["backends", "local"]),
        ("[backends.x]\nkind = 'local'\nmodel = 'x'", ["backends", "x"]),
        ("[backends.x]\nkind = 'openai'\ncaption_model = 'x'", ["backends", "x"]),
        ("[backends.x]\nkind = 'vision_backends.backends.embedded:EmbeddedBackend'\nmodel = 'x'", ["backends", "x"]),
        ("[backends.x]\nkind = 5", ["backends", "x", "kind"]),
        ("[backends.x]\nkind = 'azure'\nbase_url = 'https://x.test'", ["backends", "x"]),
        ("backends = 5", ["backends"]),
    ],
)
def test_what_the_program_refuses_fails(check, text, where):
    """At the place where it stands."""
    error = check(text)
    assert error is not None
    assert list(error.absolute_path) == where


@pytest.mark.parametrize(
    "text",
    [
        "",
        'hedge_after_s = "p95"',
        "hedge_after_s = 2.5",
        'state = "/tmp/x.sqlite"',
        "[ladder]\ndetect = ['embedded']",
        "[openai]\nprices = { m = { input = 0.1, output = 1 } }\nheaders = { a = 'b' }\nmax_tokens = 5",
        "[backends.openai]\nkind = 'openai'\nmodel = 'x'",
        "[backends.x]\nkind = 'openai'\nmodel = 'x'\nrequests_per_minute = 5",
        "[backends.x]\nkind = 'mine'\nanything = [1]",
        "[backends.'a:B']\nstars = 5",
    ],
)
def test_what_the_program_takes_passes(check, text, tmp_path):
    """Of backends of others nothing is known, so that nothing is refused."""
    assert check(text) is None
    (tmp_path / "named.toml").write_text(text, encoding="utf-8")
    load_settings(tmp_path / "named.toml")


def test_every_key_of_a_built_in_rung_is_explained(vision):
    """By the words of its class, with its default."""
    schema = json.loads(vision("config", "--schema").stdout)
    for kind in ("openai", "azure", "local", "embedded"):
        keys = schema["$defs"][kind]["properties"]
        assert [name for name, key in keys.items() if not key.get("description")] == []
    azure = schema["$defs"]["azure"]["properties"]
    assert azure["timeout_s"] == schema["$defs"]["openai"]["properties"]["timeout_s"]
    assert azure["azure_ad_token_provider"]["type"] == "string"
    timeout = schema["$defs"]["openai"]["properties"]["timeout_s"]
    assert timeout == {
        "description": "Seconds that one call may take, whatever the router allows.",
        "type": "number",
        "default": 20.0,
    }
    assert [name for name, key in schema["properties"].items() if not {"description", "$ref"} & key.keys()] == []


def test_editors_are_offered_the_keys_of_all_kinds_for_a_rung(vision):
    """Those that complete keys do not look behind conditions."""
    offered = json.loads(vision("config", "--schema").stdout)["$defs"]["rung"]["properties"]
    assert {"kind", "base_url", "caption_model", "ocr", "daily_budget_usd"} <= offered.keys()


def test_the_schema_does_not_depend_on_what_is_configured(vision, use_ladder):
    """It is the same file for everybody who has the same version."""
    first = vision("config", "--schema").stdout
    use_ladder("embedded", more="deadline_s = 3\n")
    assert vision("config", "--schema").stdout == first
    assert vision("config", "--schema", "--path").exit_code == 2


def test_a_foreign_backend_declares_its_keys_as_ours_do():
    """Also one without words or types."""
    from vision_backends.config.declarations import keys_of

    class Mine:
        def __init__(self, size, *, name: str = "x", clock=inspect, later: Unknown = None) -> None:  # noqa: F821
            """Ignore them."""

    found = {key.name: (key.schema, key.default, key.text) for key in keys_of(Mine)}
    assert found == {
        "size": ({}, None, ""),
        "name": ({"type": "string"}, "x", ""),
        "clock": ({}, None, ""),
        "later": ({}, None, ""),
    }
