"""From a name on the ladder to a backend: built in, installed, or given by its path."""

import traceback

import pytest

from vision_backends import ConfigError, DescribeRequest
from vision_backends.backends.local import LocalBackend
from vision_backends.backends.registry import BUILT_IN, ENTRY_POINT_GROUP, make_backend
from vision_backends.config.validation import HiddenTable
from vision_backends.testing import FakeBackend

CANARY = "sk-canary-0123456789"

MODULE = """
from vision_backends.testing import FakeBackend


class Moon(FakeBackend):
    def __init__(self, *, phase: float = 0.5) -> None:
        super().__init__("moon")
        self.phase = phase


class Outer:
    class Moon(FakeBackend):
        pass


def half():
    return Moon()
"""

FORGETFUL = """
from vision_backends import ConfigError
from vision_backends.testing import FakeBackend


class Moon(FakeBackend):
    def __init__(self, *, key: str) -> None:
        del key
        raise ConfigError("There is no such key.")
"""


@pytest.fixture
def install(monkeypatch, tmp_path):
    """An installer of a distribution with one module, whose name it returns, and one entry point."""

    def install(*, text: str = MODULE, entry: str = "moon", target: str = "Moon") -> str:
        module = tmp_path.name  # no other test has imported one of that name
        (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
        information = tmp_path / f"{module}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8"
        )
        (information / "entry_points.txt").write_text(
            f"[{ENTRY_POINT_GROUP}]\n{entry} = {module}:{target}\n", encoding="utf-8"
        )
        monkeypatch.syspath_prepend(tmp_path)
        return module

    return install


def refusal(name, table=None) -> ConfigError:
    """Return the error that making a backend ends with."""
    with pytest.raises(ConfigError) as caught:
        make_backend(name, table or {})
    return caught.value


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_backend_is_made_without_any_table(name):
    """Each is called by its own name, and nothing needs to be configured."""
    backend = make_backend(name, {})
    assert backend.name == name
    backend.close()


def test_a_table_becomes_keywords_of_the_constructor():
    """Texts of variables take the types that the constructor wants."""
    backend = make_backend("vision_backends.testing:FakeBackend", {"name": "mine", "batch_size": "4"})
    assert isinstance(backend, FakeBackend)
    assert backend.name == "mine"
    assert backend.batch_size(DescribeRequest()) == 4


def test_a_path_names_a_class_in_any_module(install):
    """`package.module:Class` needs no entry point."""
    module = install()
    assert make_backend(f"{module}:Moon", {"phase": "0.25"}).phase == 0.25


def test_an_installed_distribution_offers_its_backend_by_name(install):
    """Its entry point is found without anything being configured."""
    module = install()
    backend = make_backend("moon", {"phase": 1})
    assert backend.name == "moon"
    assert type(backend).__module__ == module
    assert backend.phase == 1.0


def test_a_built_in_name_cannot_be_taken_over(install):
    """What is on the ladder by default stays what it is, whatever gets installed."""
    install(entry="local")
    assert isinstance(make_backend("local", {}), LocalBackend)


def test_an_unknown_name_names_the_nearest_one(install):
    """Installed names count as well as built-in ones."""
    install(entry="moonlight")
    error = refusal("opnai")
    assert error.message == "The ladder names an unknown backend: 'opnai'."
    assert error.remedy == "Did you mean 'openai'?"
    assert refusal("monlight").remedy == "Did you mean 'moonlight'?"


def test_a_name_that_resembles_nothing_is_answered_with_all_there_are(install):
    """And with the way to give one's own."""
    install()
    remedy = refusal("zzz").remedy
    assert all(name in remedy for name in (*BUILT_IN, "moon", "package.module:Class"))


@pytest.mark.parametrize(
    "name",
    [
        "no_such_module:Backend",
        "vision_backends.testing:NoSuchBackend",
        "vision_backends.backends.registry:",
        ":Backend",
        ".relative:Backend",
    ],
)
def test_a_path_that_leads_nowhere_is_an_error_of_the_configuration(name):
    """It names the path and the reason."""
    error = refusal(name)
    assert error.message.startswith(f"The backend {name!r} cannot be imported: ")
    assert error.remedy


def test_a_module_that_breaks_when_imported_is_an_error_of_the_configuration(install):
    """Whatever it raises; the cause stays attached for who wants to see it."""
    module = install(text="raise RuntimeError('no moon today')")
    by_name, by_path = refusal("moon"), refusal(f"{module}:Moon")
    for error in (by_name, by_path):
        assert "RuntimeError: no moon today" in error.message
        assert isinstance(error.__cause__, RuntimeError)


def test_a_missing_dependency_of_an_installed_backend_says_what_to_install(install):
    """The import error's own words name it."""
    install(text="import a_module_that_nobody_has")
    assert "a_module_that_nobody_has" in refusal("moon").message


@pytest.mark.parametrize("target", ["half", "Outer"])
def test_what_is_no_backend_is_refused(install, target):
    """Functions and other classes have no place on a ladder."""
    module = install(target=target)
    assert refusal("moon").message == "'moon' on the ladder is not a subclass of vision_backends.Backend."
    assert "not a subclass" in refusal(f"{module}:{target}").message


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("local", {"devise": "cpu"}, "[local] has an unknown key 'devise'."),
        ("local", {"device": "abacus"}, "[local] has a bad value for 'device'"),
        ("moon", {"phas": 1}, "[backends.moon] has an unknown key 'phas'."),
    ],
)
def test_a_bad_table_is_named_as_the_file_writes_it(install, name, table, message):
    """The reader knows where to look."""
    install()
    assert refusal(name, table).message.startswith(message)


def test_the_table_of_a_path_is_quoted(install):
    """In TOML, a key with a dot or colon has to be."""
    module = install()
    assert refusal(f"{module}:Moon", {"phas": 1}).message.startswith(f'[backends."{module}:Moon"] has')


def test_no_value_of_a_table_is_in_the_traceback_of_what_a_constructor_raises(install):
    """The constructor may forget its keys; what called it has hidden them."""
    module = install(text=FORGETFUL)
    with pytest.raises(ConfigError, match="no such key") as caught:
        make_backend(f"{module}:Moon", HiddenTable({"key": CANARY}))
    told = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "in from_settings" in told
    assert CANARY not in told


class TestKinds:
    """``kind`` says what a rung of any name is."""

    def test_a_kind_is_built_in_an_entry_point_or_a_path(self, install):
        """And the rung is called by its own name."""
        module = install()
        for kind, words in (("openai", {}), ("local", {}), ("moon", {"phase": 1}), (f"{module}:Moon", {})):
            backend = make_backend("second", {"kind": kind, **words})
            assert backend.name == "second"
            backend.close()

    def test_an_unknown_kind_names_the_nearest_one(self, install):
        """Of those that are built in or installed."""
        install(entry="moonlight")
        error = refusal("second", {"kind": "opnai"})
        assert error.message == "[backends.second] has an unknown kind: 'opnai'."
        assert error.remedy == "Did you mean 'openai'?"
        assert refusal("second", {"kind": "monlight"}).remedy == "Did you mean 'moonlight'?"

    @pytest.mark.parametrize("kind", ["", 3, None, ["openai"]])
    def test_a_kind_is_a_text(self, kind):
        """An error that says which there are."""
        assert "openai, local, embedded" in refusal("second", {"kind": kind}).remedy

    @pytest.mark.parametrize("name", ["Second", "-second", "se cond", "a/b", "zwölf", "a.b", "second\n"])
    def test_a_name_is_one_that_variables_and_commands_can_carry(self, name):
        """The error shows what is allowed."""
        error = refusal(name, {"kind": "openai"})
        assert "is not a name for a rung" in error.message
        assert "gpu-1" in error.remedy

    def test_a_table_without_a_kind_is_told_what_it_lacks(self):
        """Where no backend of its name is installed."""
        with pytest.raises(ConfigError) as caught:
            make_backend("azure", {"model": "m"}, known=["azure"])
        assert caught.value.message.startswith("[backends.azure] has no kind")
        assert 'kind = "openai"' in caught.value.remedy

    def test_a_misspelt_name_is_told_the_nearest_table(self):
        """As it is told the nearest built-in name."""
        with pytest.raises(ConfigError) as caught:
            make_backend("azuer", {}, known=["azure"])
        assert caught.value.remedy == "Did you mean 'azure'?"

    def test_a_misspelt_kind_is_a_key_with_a_nearest_one(self, install):
        """Also where the name is an installed one."""
        install()
        assert refusal("moon", {"knd": "moon"}).remedy == "Did you mean 'kind'?"
