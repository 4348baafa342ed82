"""Settings: files, variables, which of them wins, and errors that name the key but never the value."""

import traceback
from pathlib import Path

import pytest

from vision_backends import ConfigError, Router
from vision_backends.config.loading import find_config, load_settings, read_configuration
from vision_backends.config.settings import DEFAULT_LADDER, Settings, TaskLadders

CANARY = "sk-canary-0123456789"


@pytest.fixture
def write(tmp_path):
    """A writer of configuration files, outside the working directory."""

    def write(text: str, name: str = "settings.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path=None) -> ConfigError:
    """Return the error that reading the configuration ends with."""
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    return caught.value


def test_nothing_needs_to_be_configured():
    """Without a file and variables there is a whole ladder, and state in the user's cache folder."""
    settings = load_settings()
    assert settings == Settings()
    assert settings.ladder == DEFAULT_LADDER == ("openai", "local", "embedded")
    assert settings.deadline_s == 60.0
    assert settings.cache.enabled
    assert [settings.table(name) for name in (*DEFAULT_LADDER, "mine")] == [{}] * 4


def test_a_file_sets_what_it_names(write):
    """Each key lands where it belongs, and the rest stays as it was."""
    path = write("""
        ladder = ["mine", "embedded"]
        deadline_s = 5
        state = "memory"
        cache.enabled = false
        images.max_pixels = 1_000_000

        [openai]
        model = "gpt-vision"

        [local]
        device = "cpu"

        [embedded]
        threads = 2

        [backends.mine]
        colour = "red"
    """)
    settings = load_settings(path)
    assert settings.ladder == ("mine", "embedded")
    assert settings.deadline_s == 5.0
    assert (settings.cache.enabled, settings.cache.max_bytes) == (False, Settings().cache.max_bytes)
    assert (settings.images.max_pixels, settings.images.max_bytes) == (1_000_000, Settings().images.max_bytes)
    assert settings.table("openai") == {"model": "gpt-vision"}
    assert settings.table("local") == {"device": "cpu"}
    assert settings.table("embedded") == {"threads": 2}
    assert settings.table("mine") == {"colour": "red"}


def test_a_file_given_as_text_is_read(write):
    """Paths may be strings."""
    assert load_settings(str(write("deadline_s = 5"))).deadline_s == 5.0


def test_the_file_in_the_working_directory_is_found(fresh_user):
    """It is called vision.toml; a folder of that name is none."""
    (fresh_user / "vision.toml").mkdir()
    assert find_config() is None
    (fresh_user / "vision.toml").rmdir()
    (fresh_user / "vision.toml").write_text("deadline_s = 5", encoding="utf-8")
    assert find_config() == Path("vision.toml")
    assert load_settings().deadline_s == 5.0


def test_a_named_file_wins_over_the_variable_and_the_variable_over_the_working_directory(
    write, fresh_user, monkeypatch
):
    """The nearer to the call, the stronger."""
    (fresh_user / "vision.toml").write_text("deadline_s = 1", encoding="utf-8")
    monkeypatch.setenv("VISION_CONFIG", str(write("deadline_s = 2", "variable.toml")))
    assert load_settings().deadline_s == 2.0
    assert load_settings(write("deadline_s = 3", "argument.toml")).deadline_s == 3.0


def test_variables_win_over_the_file(write, monkeypatch):
    """Each variable replaces one key and leaves its neighbours alone."""
    path = write("""
        deadline_s = 60
        [cache]
        enabled = true
        max_bytes = 1000
        [openai]
        model = "from-the-file"
        base_url = "http://127.0.0.1:1/v1"
    """)
    monkeypatch.setenv("VISION_DEADLINE_S", "5")
    monkeypatch.setenv("VISION_CACHE__ENABLED", "false")
    monkeypatch.setenv("vision_openai__model", "from-a-variable")
    monkeypatch.setenv("VISION_BACKENDS__MINE__COLOUR", "red")
    settings = load_settings(path)
    assert settings.deadline_s == 5.0
    assert (settings.cache.enabled, settings.cache.max_bytes) == (False, 1000)
    assert settings.table("openai") == {"model": "from-a-variable", "base_url": "http://127.0.0.1:1/v1"}
    assert settings.table("mine") == {"colour": "red"}


def test_variables_take_lists_and_tables_as_json(monkeypatch):
    """A ladder or a whole table fits in one variable."""
    monkeypatch.setenv("VISION_LADDER", '["embedded"]')
    monkeypatch.setenv("VISION_LOCAL", '{"device": "cpu", "download": "never"}')
    settings = load_settings()
    assert settings.ladder == ("embedded",)
    assert settings.table("local") == {"device": "cpu", "download": "never"}


@pytest.mark.parametrize("value", ["123", "true", "null", "12e4567", "[1]"])
def test_a_variable_of_a_backend_stays_the_text_that_it_is(value, monkeypatch):
    """A key or model that looks like a number or JSON is not turned into one."""
    monkeypatch.setenv("VISION_OPENAI__API_KEY", value)
    assert load_settings().table("openai") == {"api_key": value}


def test_an_empty_variable_counts_as_unset(write, monkeypatch):
    """Compose files and shells leave such variables behind."""
    for name in ("VISION_CONFIG", "VISION_DEADLINE_S", "VISION_LADDER", "VISION_OPENAI__MODEL", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "")
    assert load_settings() == Settings()
    assert load_settings(write("deadline_s = 5")).deadline_s == 5.0


def test_openais_own_variables_configure_the_openai_backend(monkeypatch):
    """Whoever has used OpenAI's SDK has nothing to set up."""
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project")
    assert load_settings().table("openai") == {
        "api_key": "key",
        "base_url": "http://127.0.0.1:1/v1",
        "organization": "org",
        "project": "project",
    }


def test_openais_own_variables_yield_to_ours(write, monkeypatch):
    """VISION_OPENAI__API_KEY wins over OPENAI_API_KEY, and that over the file."""
    path = write('openai.api_key = "file"')
    assert load_settings(path).table("openai") == {"api_key": "file"}
    monkeypatch.setenv("OPENAI_API_KEY", "sdk")
    assert load_settings(path).table("openai") == {"api_key": "sdk"}
    monkeypatch.setenv("VISION_OPENAI__API_KEY", "ours")
    assert load_settings(path).table("openai") == {"api_key": "ours"}


def test_each_task_may_have_its_own_ladder(write):
    """A task that is left out takes the default, and one may have nobody."""
    settings = load_settings(write('[ladder]\ndescribe = ["openai"]\nembed_text = []'))
    assert settings.ladder == TaskLadders(describe=("openai",), embed_text=())
    assert isinstance(settings.ladder, TaskLadders)
    assert settings.ladder.detect == DEFAULT_LADDER


def test_a_variable_may_change_the_ladder_of_one_task(write, monkeypatch):
    """The other tasks keep what the file's table gives them."""
    monkeypatch.setenv("VISION_LADDER__DESCRIBE", '["embedded"]')
    settings = load_settings(write('[ladder]\ndetect = ["local"]'))
    assert settings.ladder == TaskLadders(describe=("embedded",), detect=("local",))


def test_a_variable_for_one_task_replaces_a_plain_ladder(write, monkeypatch):
    """A list of names has no place for one task."""
    monkeypatch.setenv("VISION_LADDER__DESCRIBE", '["embedded"]')
    assert load_settings(write('ladder = ["local"]')).ladder == TaskLadders(describe=("embedded",))


def test_state_lives_where_it_is_told_to(write, fresh_user):
    """In memory, in a file of one's own, or in the user's cache folder."""
    assert load_settings(write('state = "memory"')).state_file is None
    assert load_settings(write('state = "~/vision.sqlite"')).state_file == fresh_user / "vision.sqlite"
    automatic = load_settings().state_file
    assert automatic.is_relative_to(fresh_user)
    assert automatic.name == "state.sqlite"


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("deadlin_s = 5", "deadlin_s", "Did you mean 'deadline_s'?"),
        ("[opnai]\nmodel = 'x'", "opnai", "Did you mean 'openai'?"),
        ("[cache]\nenabld = true", "cache.enabld", "Did you mean 'enabled'?"),
        ("[images]\nmax_pixel = 5", "images.max_pixel", "Did you mean 'max_pixels'?"),
        ("[ladder]\ndescibe = []", "ladder.descibe", "Did you mean 'describe'?"),
        ("[cache]\nzzz = 1", "cache.zzz", "Valid keys: enabled, max_bytes, tenant."),
        (
            "zzz = 1",
            "zzz",
            (
                "Valid keys: accounts, alerts, backends, cache, deadline_s, embedded, hedge_after_s, images, ladder, "
                "local, local_only, logs, openai, state, warm_standby."
            ),
        ),
        ("_env_file = 'x'", "_env_file", "Valid keys: accounts, alerts, backends,"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest_valid_one(text, key, remedy, write):
    """Of the table in which it stands; nothing is passed over in silence."""
    path = write(text)
    error = refusal(path)
    assert error.message == f"{path} has an unknown key {key!r}."
    assert error.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("deadline_s = 0", "deadline_s", "greater than 0"),
        ("deadline_s = inf", "deadline_s", "finite"),
        ("deadline_s = nan", "deadline_s", "finite"),
        ('deadline_s = "soon"', "deadline_s", "valid number"),
        ("cache.max_bytes = -1", "cache.max_bytes", "greater than 0"),
        ("cache = true", "cache", "valid dictionary"),
        ('openai = "gpt"', "openai", "valid dictionary"),
        ('backends.mine = "red"', "backends.mine", "valid dictionary"),
        ("state = 5", "state", "'auto' or 'memory'"),
        ("ladder = []", "ladder", "at least 1 item"),
        ('ladder = ["local", 5]', "ladder.1", "valid string"),
        ('ladder = ["local", "local"]', "ladder", "names a backend twice"),
        ('ladder.detect = ["local", "local"]', "ladder.detect", "names a backend twice"),
        ('ladder.detect = "local"', "ladder.detect", "valid tuple"),
    ],
)
def test_a_bad_value_is_an_error_that_names_its_key(text, key, reason, write):
    """As the file writes it, without the inner names of any library."""
    path = write(text)
    error = refusal(path)
    assert error.message.startswith(f"{path} has a bad value for {key!r}: ")
    assert reason in error.message


def test_a_ladder_that_is_no_list_is_answered_with_an_example(write):
    """What was meant is easy to guess, and easy to show."""
    error = refusal(write('ladder = "embedded"'))
    assert error.remedy == 'Write for example: ladder = ["openai", "embedded"]'


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("VISION_DEADLINE_S", "soon", "The variable VISION_DEADLINE_S has a bad value for 'deadline_s'"),
        ("VISION_CACHE__ENABLED", "maybe", "The variable VISION_CACHE__ENABLED has a bad value for 'cache.enabled'"),
        ("VISION_CACHE__ENABLD", "1", "The variable VISION_CACHE__ENABLD has an unknown key 'cache.enabld'."),
        ("VISION_LADDER", "embedded", "The variable VISION_LADDER has a bad value for 'ladder'"),
        ("VISION_LADDER", "[1]", "The variable VISION_LADDER has a bad value for 'ladder.0'"),
        ("VISION_CACHE", "{", "The variable VISION_CACHE is not valid JSON."),
        ("VISION_DEADLIN_S", "5", "The variable VISION_DEADLIN_S is unknown."),
        ("VISION_DEADLINE", "5", "The variable VISION_DEADLINE is unknown."),
    ],
)
def test_a_bad_variable_is_named(name, value, message, write, monkeypatch):
    """Even where a file sets the same key, since the variable has won."""
    monkeypatch.setenv(name, value)
    assert refusal(write("deadline_s = 60")).message.startswith(message)


def test_a_misspelt_variable_names_the_nearest_one(monkeypatch):
    """It would have been passed over in silence."""
    monkeypatch.setenv("VISION_DEADLIN_S", "5")
    assert refusal().remedy == "Did you mean VISION_DEADLINE_S?"


def test_the_variables_of_others_are_left_alone(monkeypatch):
    """Other programs may begin theirs with VISION_ too."""
    monkeypatch.setenv("VISION_PRO_SERIAL", "5")
    monkeypatch.setenv("TELEVISION_DEADLIN_S", "5")
    assert load_settings() == Settings()


def test_a_missing_file_is_an_error(tmp_path, monkeypatch):
    """A file that was asked for by name is not optional."""
    path = tmp_path / "nowhere.toml"
    assert refusal(path).message == f"The configuration {str(path)!r} cannot be read: No such file or directory."
    monkeypatch.setenv("VISION_CONFIG", str(path))
    assert str(path) in refusal().message


def test_a_folder_is_no_file(tmp_path):
    """Whatever the operating system refuses is an error of the configuration."""
    assert "cannot be read" in refusal(tmp_path).message


def test_bad_toml_is_an_error_that_says_where(write):
    """The line is named."""
    path = write("deadline_s = 5\nladder = [")
    message = refusal(path).message
    assert message.startswith(f"The configuration {str(path)!r} is not valid TOML: ")
    assert "end of document" in message or "line 2" in message


def test_a_file_of_another_encoding_is_an_error(tmp_path):
    """TOML is UTF-8."""
    path = tmp_path / "latin.toml"
    path.write_bytes('openai.model = "ä"'.encode("latin-1"))
    assert refusal(path).message == f"The configuration {str(path)!r} is not UTF-8."


@pytest.mark.parametrize(
    "content",
    [
        f'openai = "{CANARY}"',
        f'[openai]\napi_key = "{CANARY}"\n[cache]\nenabld = true',
        f'[openai]\napi_key = "{CANARY}"\n[openai',
        f'[openai]\napi_key = "{CANARY}',
        f'deadline_s = "{CANARY}"',
        f'ladder = "{CANARY}"',
        f'[backends]\nmine = "{CANARY}"',
        f'[openai]\napi_key = "{CANARY}"\n_env_file = "x"\n[zzz]',
        f'_env_file = "x"\n[openai]\napi_key = "{CANARY}"',
        f'[openai]\napi_key = "{CANARY}" # \udce4',
    ],
)
def test_no_secret_of_the_file_is_in_an_error(content, tmp_path):
    """Not in its text or repr, nor in what it was raised from, nor in the local variables of its traceback."""
    path = tmp_path / "vision.toml"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert_no_canary(path)


@pytest.mark.parametrize("name", ["VISION_OPENAI", "VISION_CACHE", "VISION_DEADLINE_S", "VISION_LADDER", "VISION_STAT"])
@pytest.mark.parametrize("value", [CANARY, f"{{{CANARY}", f'"{CANARY}"', f'{{"{CANARY}": 5}}'])
def test_no_secret_of_a_variable_is_in_an_error(name, value, monkeypatch):
    """A key may have been put into the wrong variable."""
    monkeypatch.setenv(name, value)
    if name == "VISION_OPENAI" and value.endswith("5}"):
        assert CANARY not in repr(load_settings())
    elif value.endswith("5}") and name in {"VISION_CACHE", "VISION_LADDER"}:
        assert "unknown key" in refusal().message  # the name of a key is no secret
    else:
        assert_no_canary(None)


def assert_no_canary(path):
    """Read the configuration and search everything that its error takes along."""
    error = refusal(path)
    told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert CANARY not in told.replace("CANARY", "")
    link = error
    while link is not None:
        assert CANARY not in f"{link} {link!r} {vars(link)}"
        link = link.__cause__ or link.__context__


def test_settings_do_not_show_what_backends_are_given(write):
    """Settings are printed and logged; keys are in the tables of backends."""
    settings = load_settings(write(f'openai.api_key = "{CANARY}"\nbackends.mine.api_key = "{CANARY}"'))
    tables = settings.table("openai"), settings.table("mine")
    assert all(table == {"api_key": CANARY} for table in tables)
    assert CANARY not in f"{settings} {settings!r} {tables}"


def test_settings_made_by_hand_do_not_show_bad_values():
    """The library's own error is hidden as well."""
    with pytest.raises(ValueError, match="openai") as caught:
        Settings(openai=CANARY)
    assert CANARY not in f"{caught.value} {caught.value!r}"


def test_settings_are_frozen():
    """Configuration changes in files, not under a running router."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().deadline_s = 5.0


class TestNamedRungs:
    """``[backends.NAME]`` with a ``kind``."""

    def test_a_table_may_be_made_of_variables_alone(self, monkeypatch):
        """What looks like a number stays what was written."""
        monkeypatch.setenv("VISION_LADDER", '["azure", "embedded"]')
        monkeypatch.setenv("VISION_BACKENDS__AZURE__KIND", "openai")
        monkeypatch.setenv("VISION_BACKENDS__AZURE__MODEL", "my-model")
        monkeypatch.setenv("VISION_BACKENDS__AZURE__API_KEY", "0123456789")
        monkeypatch.setenv("VISION_BACKENDS__AZURE__ORGANIZATION", "42")
        monkeypatch.setenv("VISION_BACKENDS__AZURE__TIMEOUT_S", "5")
        monkeypatch.setenv("VISION_BACKENDS__AZURE__HEADERS", '{"x-title": "mine"}')
        monkeypatch.setenv("VISION_BACKENDS__AZURE__PRICES__MY-MODEL", '{"input": 1, "output": 2}')
        with Router.from_config() as router:
            status = router.status()[0]
        assert (status.backend, status.facts["model"], status.facts["has_key"]) == ("azure", "my-model", True)
        assert load_settings().table("azure")["organization"] == "42"

    def test_variables_win_over_files_key_by_key(self, write, monkeypatch):
        """In the table of any rung."""
        monkeypatch.setenv("VISION_BACKENDS__AZURE__MODEL", "of the variable")
        path = write('[backends.azure]\nkind = "openai"\nmodel = "of the file"\ntimeout_s = 3')
        assert load_settings(path).table("azure") == {"kind": "openai", "model": "of the variable", "timeout_s": 3}
        assert read_configuration(path).origins["backends", "azure", "model"] == "VISION_BACKENDS__AZURE__MODEL"

    @pytest.mark.parametrize("kind", ["", 'kind = "openai"\n'])
    def test_the_table_of_a_built_in_rung_may_stand_among_the_others(self, write, kind):
        """It is the same table, and its own name keeps its kind."""
        path = write(f'[backends.openai]\n{kind}model = "m"')
        configuration = read_configuration(path)
        assert configuration.settings.table("openai") == {"model": "m"}
        assert configuration.settings.backends == {}
        assert configuration.origins["openai", "model"] == str(path)

    def test_its_variables_are_found_there_as_well(self, monkeypatch):
        """And named where they are asked for."""
        monkeypatch.setenv("VISION_BACKENDS__OPENAI__MODEL", "m")
        assert load_settings().table("openai") == {"model": "m"}
        assert read_configuration().variables == ["VISION_BACKENDS__OPENAI__MODEL"]

    def test_only_one_of_the_two_may_stand(self, write):
        """The error names both."""
        error = refusal(write('[openai]\nmodel = "a"\n[backends.openai]\nmodel = "b"'))
        assert "[openai]" in error.message
        assert "[backends.openai]" in error.message

    @pytest.mark.parametrize("table", ["backends.local", "local"])
    def test_a_built_in_name_keeps_its_kind(self, write, table):
        """Nobody is misled by a name."""
        error = refusal(write(f'[{table}]\nkind = "openai"'))
        assert "another kind" in error.message
        assert "'local'" in error.message
        assert load_settings(write(f'[{table}]\nkind = "local"\ndevice = "cpu"')).table("local") == {"device": "cpu"}

    def test_a_program_is_told_the_same(self):
        """Whose settings come from no file."""
        with pytest.raises(ValueError, match="openai is configured as"):
            Settings(backends={"openai": {}})

    def test_kinds_are_known_however_they_are_written(self):
        """A path to the class is as good as its name."""
        settings = Settings(
            ladder=("a", "b", "openai", "moon"),
            backends={
                "a": {"kind": "openai"},
                "b": {"kind": "vision_backends.backends.openai:OpenAIBackend"},
                "c": {"kind": "local"},
            },
        )
        assert settings.rungs_of("openai") == ["openai", "a", "b"]
        assert settings.rungs_of("local") == ["local", "c"]
        assert settings.kind_of("moon") == "moon"
        assert settings.server_of("c") is None
        assert settings.server_of("b").is_openai
