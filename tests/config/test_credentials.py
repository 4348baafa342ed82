"""To which server a key goes."""

from __future__ import annotations

import logging

import pytest

from vision_backends.config.loading import load_settings
from vision_backends.config.web_address import origin_of


@pytest.fixture
def configure(fresh_user, tmp_path, monkeypatch):
    """A writer of the user's file, a named file and variables; returns the table of a rung that is in force."""

    def configure(*, own: str = "", named: str = "", rung: str = "openai", **variables: str):
        path = fresh_user / ".config" / "vision-backends" / "vision.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(own, encoding="utf-8")
        (tmp_path / "named.toml").write_text(named, encoding="utf-8")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load_settings(tmp_path / "named.toml").table(rung)

    return configure


def test_a_key_goes_to_openai(configure):
    """Whoever gives it, and to OpenAI's other hosts as well."""
    assert configure(OPENAI_API_KEY="key") == {"api_key": "key"}
    assert configure(named='openai.base_url = "https://eu.api.openai.com/v1"')["api_key"] == "key"


@pytest.mark.parametrize(
    "address",
    [
        {"OPENAI_BASE_URL": "https://x.test/v1"},
        {"VISION_OPENAI__BASE_URL": "https://x.test/v1"},
        {"OPENAI_BASE_URL": "http://gpu.test/v1"},
        {"own": 'openai.base_url = "https://x.test/v1"'},
        {"named": 'openai.base_url = "https://x.test/v1"'},
        {"named": 'openai.base_url = "http://127.0.0.1:8000/v1"'},
        {"named": 'openai.base_url = "http://localhost:8000/v1"'},
        {"named": 'openai.base_url = "http://[::1]:8000/v1"'},
    ],
)
def test_a_key_goes_to_a_server_that_the_user_has_named(configure, address):
    """Encrypted, to this machine, or as it was given for."""
    assert configure(OPENAI_API_KEY="key", **address)["api_key"] == "key"


@pytest.mark.parametrize(
    "address",
    [
        {"named": 'openai.base_url = "http://gpu.test/v1"'},
        {"own": 'openai.base_url = "http://gpu.test/v1"'},
        {"VISION_OPENAI__BASE_URL": "http://gpu.test/v1"},
        {"named": 'openai.base_url = "http://127.0.0.1.evil.test/v1"'},
        {"named": 'openai.base_url = "http://localhost.evil.test/v1"'},
        {"named": 'openai.base_url = "http://api.openai.com/v1"'},
        {"OPENAI_BASE_URL": "https://x.test/v1", "VISION_OPENAI__BASE_URL": "http://x.test/v1"},
    ],
)
def test_a_key_for_an_encrypted_server_never_travels_in_the_clear(configure, address):
    """Nor does the name of the account."""
    assert configure(OPENAI_API_KEY="key", OPENAI_ORG_ID="org", **address).keys() == {"base_url"}


def test_a_proxy_makes_this_machine_another_one(configure, monkeypatch):
    """It would read the key."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    named = 'openai.base_url = "http://127.0.0.1:8000/v1"'
    assert "api_key" not in configure(OPENAI_API_KEY="key", named=named)
    assert "api_key" in configure(NO_PROXY="127.0.0.1", named=named)


def test_a_key_that_was_given_for_one_server_does_not_go_to_another(configure):
    """A place that names both means both: keys, headers and accounts."""
    own = """
        [openai]
        base_url = "https://one.test/v1"
        api_key = "for one"
        organization = "org"
        headers = {x-key = "for one"}
    """
    assert configure(own=own)["api_key"] == "for one"
    for address in (
        "https://two.test/v1",
        "https://api.openai.com/v1",
        "http://one.test/v1",
        "https://one.test:8443/v1",
    ):
        table = configure(own=own, named=f'openai.base_url = "{address}"\nopenai.headers = {{x-mine = "y"}}')
        assert table == {"base_url": address, "headers": {"x-mine": "y"}}
    assert configure(own=own, named='openai.base_url = "https://ONE.test:443/v2"')["api_key"] == "for one"


def test_the_key_that_was_given_for_the_server_wins_over_a_later_one(configure):
    """OPENAI_API_KEY lies in many environments, for other programs."""
    named = 'openai.base_url = "https://x.test/v1"\nopenai.api_key = "for x"'
    assert configure(named=named, OPENAI_API_KEY="for OpenAI")["api_key"] == "for x"


def test_an_address_that_is_none_withholds_nothing(configure):
    """The error about it comes when the backend is made, and nothing is sent."""
    assert configure(OPENAI_API_KEY="key", named='openai.base_url = "nonsense"')["api_key"] == "key"


def test_what_is_withheld_is_logged_without_the_key(configure, caplog):
    """Programs read logs."""
    with caplog.at_level(logging.WARNING, "vision_backends.config"):
        configure(OPENAI_API_KEY="sk-canary", named='openai.base_url = "http://gpu.test/v1"')
    assert caplog.messages == [
        "OPENAI_API_KEY is not sent to http://gpu.test: it was given for https://api.openai.com."
    ]


@pytest.mark.parametrize("headers", ['"text"', "[1]", "{}"])
def test_headers_of_a_wrong_type_are_left_to_their_own_error(configure, headers):
    """Nothing here stumbles over them."""
    configure(own='openai.headers = {a = "b"}', named=f'openai.headers = {headers}\nopenai.base_url = "https://x.test"')


@pytest.mark.parametrize(
    ("url", "shown", "is_openai"),
    [
        ("https://API.OpenAI.com:443/v1", "https://api.openai.com", True),
        ("https://api.openai.com./v1", "https://api.openai.com", True),
        ("http://us.api.openai.com/v1", "http://us.api.openai.com", True),
        ("https://api.openai.com.evil.test", "https://api.openai.com.evil.test", False),
        ("https://evil-api.openai.com", "https://evil-api.openai.com", False),
        ("https://openai.com", "https://openai.com", False),
        ("http://[::1]:8000/v1", "http://[::1]:8000", False),
    ],
)
def test_servers_are_told_apart_as_browsers_do(url, shown, is_openai):
    """By scheme, host and port."""
    origin = origin_of(url)
    assert (str(origin), origin.is_openai) == (shown, is_openai)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai。com/v1",
        "https://evil.test\\.api.openai.com/v1",
        "https://api.openai.com\n.evil.test/",
        "https://api .openai.com/",
        "https://api%2eopenai.com/",
        "https:///v1",
        "//api.openai.com/v1",
    ],
)
def test_an_address_that_two_parsers_may_read_differently_is_none(url):
    """One of them would send the key elsewhere."""
    assert origin_of(url) is None


class TestNamedRungs:
    """What holds for ``[openai]`` holds for the table of every rung."""

    OWN = """
        [backends.one]
        kind = "openai"
        base_url = "https://one.test/v1"
        api_key = "for one"
        headers = {x-key = "for one"}
        [backends.two]
        kind = "openai"
        api_key_env = "KEY_OF_TWO"
        organization = "org"
    """

    def test_each_keeps_what_was_given_for_its_server(self, configure):
        """And nothing of another, nor what is meant for OpenAI's own rung."""
        assert configure(own=self.OWN, rung="one", OPENAI_API_KEY="key") == {
            "kind": "openai",
            "base_url": "https://one.test/v1",
            "api_key": "for one",
            "headers": {"x-key": "for one"},
        }
        two = configure(own=self.OWN, rung="two", OPENAI_ORG_ID="mine")
        assert two == {"kind": "openai", "api_key_env": "KEY_OF_TWO", "organization": "org"}

    @pytest.mark.parametrize(
        "elsewhere",
        [
            {"named": 'backends.one.base_url = "https://evil.test/v1"'},
            {"VISION_BACKENDS__ONE__BASE_URL": "https://evil.test/v1"},
        ],
    )
    def test_a_key_does_not_go_to_an_address_of_another_place(self, configure, elsewhere):
        """Neither a file nor a variable leads it elsewhere."""
        assert configure(own=self.OWN, rung="one", **elsewhere) == {
            "kind": "openai",
            "base_url": "https://evil.test/v1",
            "headers": {},
        }

    @pytest.mark.parametrize(
        "elsewhere",
        [
            {"named": 'backends.two.base_url = "http://gpu.test/v1"'},
            {"VISION_BACKENDS__TWO__BASE_URL": "http://gpu.test/v1"},
        ],
    )
    def test_the_name_of_a_variable_leads_to_a_key_and_is_withheld_like_one(self, configure, elsewhere):
        """It would be sent unencrypted."""
        assert configure(own=self.OWN, rung="two", **elsewhere) == {"kind": "openai", "base_url": "http://gpu.test/v1"}

    def test_a_variable_gives_a_key_to_a_server_of_a_file(self, configure):
        """Over https, or beside the address."""
        named = 'backends.azure = {kind = "openai", base_url = "https://azure.test/v1"}'
        key = {"VISION_BACKENDS__AZURE__API_KEY": "1234"}
        assert configure(named=named, rung="azure", **key)["api_key"] == "1234"
        named = 'backends.azure = {kind = "openai", base_url = "http://azure.test/v1"}'
        assert "api_key" not in configure(named=named, rung="azure", **key)
        key["VISION_BACKENDS__AZURE__BASE_URL"] = "http://azure.test/v2"
        assert configure(named=named, rung="azure", **key)["api_key"] == "1234"

    def test_what_is_withheld_names_place_and_table(self, configure, caplog):
        """Without the key."""
        with caplog.at_level(logging.WARNING, "vision_backends.config"):
            configure(
                named='backends.azure = {kind = "openai", base_url = "http://gpu.test/v1"}',
                VISION_BACKENDS__AZURE__API_KEY="sk-canary",
            )
        (message,) = caplog.messages
        assert message.startswith("backends.azure.api_key of VISION_BACKENDS__AZURE__API_KEY is not sent to http://gpu")
        assert message.endswith("it has no base_url beside it, and would not be encrypted.")

    def test_the_class_by_its_path_is_no_way_round(self, configure):
        """Nor is a kind that is not known: a key of one address stays there."""
        own = 'backends.one = {kind = "a.b:C", base_url = "https://one.test", api_key = "for one"}'
        for kind in ("vision_backends.backends.openai:OpenAIBackend", "moon"):
            named = f'backends.one = {{kind = "{kind}", base_url = "https://evil.test"}}'
            assert "api_key" not in configure(own=own, named=named, rung="one")


def test_of_a_key_and_a_token_provider_the_later_place_wins(configure):
    """They are two proofs of one thing; a provider given beside one endpoint goes to no other."""
    table = '[backends.azure]\nkind = "azure"\nendpoint = "https://x.openai.azure.com"\n'
    own = f'{table}api_key = "for x"'
    later = 'azure_ad_token_provider = "azure-identity"'
    found = configure(own=own, named=f"{table}{later}", rung="azure")
    assert ("api_key" in found, found["azure_ad_token_provider"]) == (False, "azure-identity")
    moved = '[backends.azure]\nendpoint = "https://y.openai.azure.com"'
    for given in (own, f"{table}{later}"):
        found = configure(own=given, named=moved, rung="azure")
        assert found == {"kind": "azure", "endpoint": "https://y.openai.azure.com"}
