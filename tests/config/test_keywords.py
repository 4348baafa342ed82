"""What a program sets: it wins over files and variables, key by key, and is checked as they are."""

import asyncio
import types

import pytest

from vision_backends import AsyncRouter, ConfigError, Router
from vision_backends.config.keywords import ConfigKeywords
from vision_backends.config.loading import load_settings, read_configuration
from vision_backends.config.settings import Settings

CANARY = "sk-canary-0123456789"


@pytest.fixture
def file(tmp_path):
    """A configuration that is named."""
    path = tmp_path / "named.toml"
    path.write_text(
        'ladder = ["openai", "embedded"]\nstate = "memory"\ncache.enabled = false\n'
        f'[openai]\napi_key = "{CANARY}"\nmodel = "of-the-file"\ntimeout_s = 7\n'
        '[backends.second]\nkind = "openai"\nmodel = "m"\nbase_url = "https://second.test/v1"\n',
        encoding="utf-8",
    )
    return path


def rungs(router) -> list[str]:
    """Return the names of a router's rungs, best first."""
    return [verdict.backend for verdict in router.explain("describe").verdicts]


def test_there_is_a_keyword_for_every_key():
    """And no other."""
    assert [*ConfigKeywords.__annotations__] == [*Settings.model_fields]


def test_a_keyword_wins_over_file_and_variable_and_leaves_its_neighbours_alone(file, monkeypatch):
    """Key by key, in tables too."""
    monkeypatch.setenv("VISION_OPENAI__MODEL", "of-the-variable")
    monkeypatch.setenv("VISION_DEADLINE_S", "9")
    overrides = {"openai": {"model": "of-the-program"}, "deadline_s": 3, "backends": {"second": {"timeout_s": 1}}}
    settings = load_settings(file, overrides=overrides)
    assert settings.deadline_s == 3.0
    assert settings.table("openai") == {"api_key": CANARY, "model": "of-the-program", "timeout_s": 7}
    assert settings.table("second")["base_url"] == "https://second.test/v1"
    assert settings.table("second")["timeout_s"] == 1
    assert settings.ladder == ("openai", "embedded")


def test_a_router_has_the_ladder_and_tables_that_it_is_given(file):
    """A rung that no file knows among them; the ladder replaces the file's."""
    with Router.from_config(
        file,
        ladder=["tiny", "second", "embedded"],
        backends={"tiny": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "tiny-model"}},
    ) as router:
        assert rungs(router) == ["tiny", "second", "embedded"]
        assert router.explain("describe").verdicts[0].model == "tiny-model"


def test_a_ladder_may_be_one_per_task(file):
    """As in a file; any sequence and any mapping will do."""
    ladder = types.MappingProxyType({"describe": ("embedded",), "detect": ["second", "embedded"]})
    with Router.from_config(file, ladder=ladder) as router:
        assert rungs(router) == ["embedded"]
        assert [verdict.backend for verdict in router.explain("detect").verdicts] == ["second", "embedded"]


def test_an_asynchronous_router_takes_the_same(file):
    """They are the same router."""

    async def asked() -> list[str]:
        async with AsyncRouter.from_config(file, ladder=["embedded"], embedded={"threads": 1}) as router:
            explanation = await router.explain("describe")
            return [verdict.backend for verdict in explanation.verdicts]

    assert asyncio.run(asked()) == ["embedded"]


def test_settings_that_are_read_can_be_overridden_too(file):
    """With the same rules as a file; the settings stay as they were."""
    settings = load_settings(file)
    changed = load_settings(settings, overrides={"openai": {"model": "other"}, "state": "memory"})
    assert changed.table("openai") == {"api_key": CANARY, "model": "other", "timeout_s": 7}
    assert settings.table("openai")["model"] == "of-the-file"
    assert load_settings(settings) is settings
    nested = load_settings(settings, overrides={"backends": {"openai": {"model": "nested"}}})
    assert nested.table("openai")["model"] == "nested"


def test_a_key_goes_only_to_the_server_that_it_was_given_for(file):
    """A program that names another server brings its own key, or none."""
    elsewhere = {"openai": {"base_url": "http://gpu.test/v1"}}
    assert "api_key" not in load_settings(file, overrides=elsewhere).table("openai")
    assert "api_key" not in load_settings(load_settings(file), overrides=elsewhere).table("openai")
    own = {"openai": {"base_url": "http://gpu.test/v1", "api_key": "sk-own"}}
    assert load_settings(file, overrides=own).table("openai")["api_key"] == "sk-own"


def test_the_variable_of_a_key_replaces_the_key_of_a_file(file):
    """Of two ways to name a key, the later counts."""
    table = load_settings(file, overrides={"openai": {"api_key_env": "SECOND_KEY"}}).table("openai")
    assert (table.get("api_key"), table["api_key_env"]) == (None, "SECOND_KEY")


def test_the_origin_of_what_a_program_sets_is_the_keyword(file):
    """Beside those of the file and of variables, of which it is none."""
    configuration = read_configuration(file, overrides={"backends": {"openai": {"model": "x"}}, "deadline_s": 1})
    assert configuration.origins["openai", "model"] == "keyword backends"
    assert configuration.origins["deadline_s",] == "keyword deadline_s"
    assert configuration.origins["openai", "timeout_s"] == str(file)
    assert configuration.variables == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"opanai": {}}, ("from_config()", "unknown key 'opanai'", "Did you mean 'openai'?")),
        ({"cache": {"enabeld": True}}, ("from_config()", "'cache.enabeld'", "Did you mean 'enabled'?")),
        ({"openai": {"modle": "x"}}, ("[openai]", "'modle'", "Did you mean 'model'?")),
        ({"openai": CANARY}, ("from_config()", "'openai'")),
        ({"backends": {"x": {"kind": "opanai"}}, "ladder": ["x"]}, ("[backends.x]", "'opanai'")),
        ({"backends": {"openai": {}}, "openai": {"model": "x"}}, ("from_config()", "both")),
        ({"backends": {"openai": {"kind": "local"}}}, ("from_config()", "another kind")),
        ({"ladder": ["openai", "openai"]}, ("from_config()", "'ladder'", "twice")),
        ({"ladder": []}, ("from_config()", "'ladder'")),
        ({"ladder": None}, ("from_config()", "'ladder'")),
        ({"ladder": ["nowhere"]}, ("'nowhere'",)),
        ({"deadline_s": CANARY}, ("from_config()", "'deadline_s'")),
        ({"backends": {1: {}}}, ("from_config()", "'backends")),
    ],
)
def test_what_has_no_meaning_is_refused_as_in_a_file(file, overrides, words):
    """By the key, never by the value."""
    with pytest.raises(ConfigError) as caught:
        Router.from_config(file, **overrides)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert CANARY not in str(caught.value)


def test_tables_of_the_program_are_its_own(file):
    """What becomes of them later changes nothing."""
    table = {"model": "x", "headers": {"a": "b"}}
    settings = load_settings(file, overrides={"openai": table})
    table["headers"]["a"] = "c"
    table["model"] = "y"
    assert (settings.openai["model"], settings.openai["headers"]) == ("x", {"a": "b"})


def test_a_file_that_was_only_found_is_as_little_believed(fresh_user):
    """That a program sets the same key is no reason to overlook what the file tries."""
    (fresh_user / "vision.toml").write_text('state = "memory"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="may not set 'state'"):
        Router.from_config(state="memory")
