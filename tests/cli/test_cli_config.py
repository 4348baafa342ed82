"""``vision config``: what is in force, and no secret of it."""

from __future__ import annotations

import json
import tomllib
from functools import reduce
from operator import getitem

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vision_backends.cli.rendering.toml import Line, to_toml
from vision_backends.cli.settings_in_force import mask
from vision_backends.config.lines import lines_in
from vision_backends.config.places import leaves

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | WORDS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(WORDS, values, max_size=3),
    max_leaves=8,
)


def test_the_defaults_are_valid_toml_and_said_to_be_defaults(vision, fresh_user, monkeypatch):
    """Without a file or variables."""
    (fresh_user / "vision.toml").unlink()
    monkeypatch.delenv("VISION_CONFIG")
    result = vision("config")
    assert result.exit_code == 0
    assert result.stdout.startswith(
        "# In force now: nothing is configured, these are the defaults.\n# The state is kept"
    )
    settings = tomllib.loads(result.stdout)
    assert settings["ladder"] == ["openai", "local", "embedded"]
    assert settings["cache"]["enabled"] is True


def test_what_is_printed_can_be_pasted_into_the_file(vision, fresh_user, use_ladder):
    """Read again, it prints the same settings."""
    use_ladder("rungs:Slow", more='deadline_s = 7\nimages.max_pixels = 5\n[backends."rungs:Slow"]\neach_s = 0.5\n')
    first = vision("config").stdout
    (fresh_user / "vision.toml").write_text(first, encoding="utf-8")
    second = vision("config").stdout
    assert tomllib.loads(second) == tomllib.loads(first)
    assert tomllib.loads(first)["backends"]["rungs:Slow"]["each_s"] == 0.5


def test_files_and_variables_that_set_something_are_named(vision, fresh_user, monkeypatch):
    """A variable that sets nothing is not."""
    monkeypatch.setenv("VISION_DEADLINE_S", "9")
    monkeypatch.setenv("VISION_UNRELATED_THING", "1")
    monkeypatch.setenv("VISION_STATE", "")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    result = vision("config")
    assert result.stdout.splitlines()[1:4] == ["#   vision.toml", "#   OPENAI_API_KEY", "#   VISION_DEADLINE_S"]
    assert tomllib.loads(result.stdout)["deadline_s"] == 9.0


def test_a_variable_that_another_overrules_is_not_named(vision, monkeypatch):
    """Our own variable counts more than OpenAI's."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("VISION_OPENAI__API_KEY", "sk-other")
    lines = vision("config").stdout.splitlines()
    assert "#   VISION_OPENAI__API_KEY" in lines
    assert "#   OPENAI_API_KEY" not in lines


def test_each_value_says_where_it_came_from(vision, fresh_user, monkeypatch, use_ladder):
    """Key by key: a file, a variable, or nothing for a default."""
    path = use_ladder("rungs:Spanish", more="deadline_s = 5\nimages.max_pixels = 7\n")
    own = fresh_user / ".config" / "vision-backends" / "vision.toml"
    own.parent.mkdir(parents=True)
    own.write_text("deadline_s = 9\n[images]\nmax_bytes = 8\nmax_pixels = 8\n", encoding="utf-8")
    monkeypatch.setenv("VISION_CACHE__ENABLED", "false")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://x.test/v1")
    lines = vision("config").stdout.splitlines()
    for line in (
        "deadline_s = 5.0  # vision.toml:3; by default 60.0",
        "max_bytes = 8  # .config/vision-backends/vision.toml:3; by default 50000000",
        "max_pixels = 7  # vision.toml:4; by default 40000000",
        "enabled = false  # VISION_CACHE__ENABLED; by default true",
        "warm_standby = true",
    ):
        assert line in lines
    report = json.loads(vision("config", "--json").stdout)
    assert report["files"] == [str(own), str(path)]
    assert report["keys"]["images.max_bytes"] == {"value": 8, "default": 50_000_000, "origin": str(own), "line": 3}
    assert report["keys"]["openai.base_url"]["origin"] == "OPENAI_BASE_URL"
    assert report["keys"]["warm_standby"] == {"value": True, "default": True, "origin": "default", "line": None}


def test_a_key_that_is_not_sent_is_said_not_to_be(vision, monkeypatch, use_ladder):
    """It belongs to another server."""
    use_ladder("rungs:Spanish", more='openai.base_url = "http://gpu.test/v1"\n')
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    result = vision("config")
    words = "OPENAI_API_KEY is not sent to http://gpu.test: it was given for https://api.openai.com"
    assert f"# {words}." in result.stdout.replace("\n# ", " ").replace(" OPENAI", "# OPENAI")
    assert "api_key" not in tomllib.loads(result.stdout)["openai"]
    assert json.loads(vision("config", "--json").stdout)["variables"] == []
    assert f"vision: {words}\n" in vision("status").stderr


def test_secrets_are_masked_and_commented_out(vision, monkeypatch, use_ladder):
    """Pasted, the mask would become the key."""
    more = (
        'openai.base_url = "https://user:pw@example.test/v1"\n[backends."a:B"]\nhub_token = "hf_x"\nbudget_tokens = 5\n'
    )
    use_ladder("rungs:Spanish", more=more)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    result = vision("config")
    lines = [line.partition("  #")[0] for line in result.stdout.splitlines()]
    assert '# api_key = "***"' in lines
    assert '# base_url = "https://***@example.test/v1"' in lines
    assert '# hub_token = "***"' in lines
    assert "budget_tokens = 5" in lines
    for secret in ("sk-very-secret", "hf_x", "user:pw"):
        assert secret not in result.stdout
        assert secret not in vision("config", "--json").stdout


def test_a_secret_is_masked_whatever_its_name(vision, use_ladder):
    """The types of the settings tell as well; what only looks like a mask is shown as it is."""
    use_ladder("rungs:Spanish", more='backends."a:B".stars = "***"\nalerts.webhook = "https://hooks.test/T0/secret"\n')
    shown = vision("config").stdout
    lines = [line.partition("  #")[0] for line in shown.splitlines()]
    assert '# webhook = "***"' in lines
    assert 'stars = "***"' in lines
    assert "T0" not in shown


def test_json_has_settings_file_variables_and_state(vision, fresh_user, monkeypatch):
    """For programs."""
    monkeypatch.setenv("VISION_STATE", "kept.sqlite")
    report = json.loads(vision("config", "--json").stdout)
    assert report["file"] == str(fresh_user / "vision.toml")
    assert report["variables"] == ["VISION_STATE"]
    assert report["state_file"] == "kept.sqlite"
    assert report["settings"]["deadline_s"] == 60.0


def test_the_path_alone_can_be_printed(vision, fresh_user):
    """For an editor; also when the file is still to be written."""
    assert vision("config", "--path").stdout == f"{fresh_user / 'vision.toml'}\n"
    (fresh_user / "vision.toml").unlink()
    absent = vision("config", "--path")
    assert absent.stdout == f"{fresh_user / 'vision.toml'}\n"
    assert "does not exist" in absent.stderr


def test_a_named_file_is_the_one_that_is_shown(vision, fresh_user):
    """--config counts here as everywhere."""
    (fresh_user / "other.toml").write_text("deadline_s = 3\n", encoding="utf-8")
    assert tomllib.loads(vision("config", "--config", "other.toml").stdout)["deadline_s"] == 3.0


@given(st.dictionaries(WORDS, VALUES, max_size=4))
@example({"list": [{"***": False}], "text": "***", "**********": "https://***@example.test"})
def test_any_table_comes_back_from_its_toml(table):
    """Whatever keys and texts a backend's table has."""
    lines = [Line(keys, reduce(getitem, keys, table)) for keys in leaves(table)]
    read = tomllib.loads("\n".join(to_toml(lines)))
    assert _without_empty_tables(read) == _without_empty_tables(table)


def _without_empty_tables(table):
    kept = {key: _without_empty_tables(value) if isinstance(value, dict) else value for key, value in table.items()}
    return {key: value for key, value in kept.items() if value != {}}


@pytest.mark.parametrize("key", ["api_key", "API_KEY", "hub_token", "client_secret", "password", "Authorization"])
def test_texts_under_the_name_of_a_secret_are_masked_at_any_depth(key):
    """In lists and tables too; numbers stay."""
    table = {"deep": [{key: "x", "n": 1}], key: {"inner": ["y", 2, None]}}
    assert mask(table) == {"deep": [{key: "***", "n": 1}], key: {"inner": ["***", 2, None]}}


def test_what_is_unset_is_left_out_of_toml():
    """TOML has no null."""
    assert list(to_toml([Line(("a",), None), Line(("b",), 1)])) == ["b = 1", "# Not set: a."]


def test_tables_of_named_rungs_are_shown_without_secrets(vision, use_ladder, monkeypatch):
    """With what has set each key; the name of a variable is no secret, a key in its place is one."""
    monkeypatch.setenv("VISION_BACKENDS__AZURE__MODEL", "m")
    monkeypatch.setenv("KEY_OF_TWO", "sk-very-secret")
    path = use_ladder(
        "azure",
        "two",
        "embedded",
        more='backends.azure = {kind = "openai", api_key = "sk-very-secret", headers = {x = "sk-very-secret"}}\n'
        'backends.two = {kind = "openai", api_key_env = "KEY_OF_TWO"}\n'
        'backends.bad = {kind = "openai", api_key_env = "sk-very-secret"}\n',
    )
    result = vision("config")
    assert "very-secret" not in result.stdout
    assert '[backends.azure]\nkind = "openai"  # vision.toml:3\n' in result.stdout
    assert '\nmodel = "m"  # VISION_BACKENDS__AZURE__MODEL; by default "' in result.stdout
    assert tomllib.loads(result.stdout)["backends"]["two"]["api_key_env"] == "KEY_OF_TWO"
    report = vision("config", "--json").stdout
    assert "very-secret" not in report
    assert json.loads(report)["keys"]["backends.azure.api_key"]["origin"] == str(path)


@pytest.mark.parametrize("name", ["keyless", "tokens", "authors", "secret-server"])
def test_what_a_rung_or_an_account_is_called_makes_nothing_of_it_a_secret(vision, use_ladder, name):
    """Only what its own keys say."""
    more = f'[backends.{name}]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"\napi_key = "sk-canary-0123456789"\n'
    more += f'account = "{name}"\n[accounts.{name}]\ndaily_budget_tokens = 5\n'
    use_ladder(name, "embedded", more=more)
    out = vision("config").stdout
    assert 'kind = "openai"' in out
    assert 'base_url = "http://127.0.0.1:9/v1"' in out
    assert "daily_budget_tokens = 5" in out
    assert "canary" not in out
    given = json.loads(vision("config", "--json").stdout)["settings"]["backends"][name]
    assert (given["kind"], given["api_key"]) == ("openai", "***")


def test_every_key_of_every_rung_is_shown_with_its_default(vision, use_ladder):
    """Those of the constructor and the limits; what has no value is named."""
    use_ladder("tiny", "embedded", more='[backends.tiny]\nkind = "local"\nmin_score = 0.75\nrequests_per_minute = 5\n')
    lines = vision("config").stdout.splitlines()
    assert "min_score = 0.75  # vision.toml:5; by default 0.5" in lines
    assert "requests_per_minute = 5  # vision.toml:6" in lines
    assert 'caption_model = "Salesforce/blip-image-captioning-base"' in lines
    assert any(line.startswith("# Not set: caption_beams, caption_seed, threads") for line in lines)
    report = json.loads(vision("config", "--json").stdout)
    assert report["keys"]["backends.tiny.min_score"]["default"] == 0.5
    assert report["keys"]["embedded.threads"] == {"value": None, "default": None, "origin": "default", "line": None}
    assert report["settings"]["backends"]["tiny"]["device"] == "auto"


def test_no_line_is_wider_than_a_terminal_for_the_sake_of_a_comment(vision, fresh_user, use_ladder, monkeypatch):
    """The comment stands above it then."""
    folder = fresh_user / ("a-folder-with-a-long-name-" * 3)
    folder.mkdir()
    path = use_ladder("openai", more='openai.model = "gpt-5-mini-with-a-long-name-and-a-date-2026-01-01"\n')
    moved = path.rename(folder / "vision.toml")
    monkeypatch.setenv("VISION_CONFIG", str(moved))
    lines = vision("config").stdout.splitlines()
    wide = [line for line in lines if len(line) > 80]
    assert all(line.startswith(("# ", "#   ")) and " " not in line.strip("# ") for line in wide), wide
    place = lines.index('model = "gpt-5-mini-with-a-long-name-and-a-date-2026-01-01"')
    assert lines[place - 1].startswith("# ")


def test_what_follows_from_a_preset_is_shown_as_the_default(vision, use_ladder):
    """Its address; a model has to be named there, at OpenAI it has not."""
    use_ladder("openai", "ollama", more='[backends.ollama]\nkind = "openai"\npreset = "ollama"\nmodel = "m"\n')
    read = tomllib.loads(vision("config").stdout)
    assert read["openai"]["base_url"] == "https://api.openai.com/v1"
    assert read["openai"]["model"]
    assert read["backends"]["ollama"]["base_url"] == "http://localhost:11434/v1"
    assert "embedding_model" not in read["backends"]["ollama"]
    use_ladder("azure", more='[backends.azure]\nkind = "azure"\nendpoint = "https://x.test"\ndeployment = "eyes"\n')
    azure = tomllib.loads(vision("config").stdout)["backends"]["azure"]
    assert azure["model"] == "eyes"
    assert "base_url" not in azure


def test_a_rung_that_cannot_be_found_is_shown_as_it_is_written(vision, use_ladder):
    """What is wrong with it others say; here a person looks for the reason."""
    use_ladder("nowhere", more='[backends.nowhere]\nkind = "nothing"\nkey = "x"\nsize = 1\n')
    result = vision("config")
    assert result.exit_code == 0
    assert (
        '[backends.nowhere]\nkind = "nothing"  # vision.toml:4\n# key = "***"  # vision.toml:5\nsize = 1'
        in result.stdout
    )


def test_the_line_of_a_key_is_where_its_statement_begins():
    """In tables, dotted keys, texts and lists over several lines; what looks like a header in a text is none."""
    text = """# deadline_s = 1
ladder = [
  "openai",  # [local]
  "embedded",
]
images.max_bytes = 5
[openai]
prices = { m = { input = 1 } }
note = '''
[local]
device = "cpu"
'''
api = "chat"

  [ backends . "a.b" ]  # [openai]
x.y = 1
"""
    assert lines_in(text) == {
        ("ladder",): 2,
        ("images", "max_bytes"): 6,
        ("openai",): 7,
        ("openai", "prices", "m", "input"): 8,
        ("openai", "note"): 9,
        ("openai", "api"): 13,
        ("backends", "a.b"): 15,
        ("backends", "a.b", "x", "y"): 16,
    }


def test_the_line_of_a_built_in_rung_is_found_below_backends_too(vision, use_ladder):
    """It is the same table."""
    use_ladder("embedded", more="[backends.embedded]\nthreads = 1\n")
    assert "threads = 1  # vision.toml:4" in vision("config").stdout.splitlines()
