"""A canary key must be found nowhere."""

from __future__ import annotations

import logging
import pickle
import traceback

import pytest

from vision_backends.backends.openai import AzureBackend, OpenAIBackend
from vision_backends.backends.openai.secret import Secret, scrub
from vision_backends.backends.requests import DescribeRequest, EmbedRequest
from vision_backends.errors import AuthenticationError, ConfigError, VisionError
from vision_backends.testing.sandbox import FAULTS, Fault

KEY = "sk-canary-0d9f8e7a6b"
HEADER = "canary-token-5c4b3a"


def everything_about(error):
    """Return all that a log, a crash reporter or a pickle could show of an error."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    chain = [repr(error.__cause__), repr(error.__context__)]
    return "\n".join([repr(error), str(error), repr(vars(error)), repr(pickle.dumps(error)), *chain, *shown.format()])


def assert_no_canary(text):
    """Fail without showing what was found."""
    assert KEY not in text, "the key"
    assert HEADER not in text, "the header"


def test_no_error_of_any_kind_shows_the_key(make_backend, sandbox, photo, caplog):
    """Not in its message, attributes, pickle, chain or the variables of its frames; nor does a log at any level."""
    caplog.set_level(logging.DEBUG)
    backend = make_backend(api_key=KEY, headers={"X-Token": HEADER})
    for name in FAULTS:
        sandbox.play(name, times=1)
        try:
            backend.describe([photo], DescribeRequest(), timeout_s=0.1)
        except VisionError as error:
            assert_no_canary(everything_about(error))
        sandbox.heal()
    assert_no_canary(caplog.text)
    assert_no_canary(str([vars(record) for record in caplog.records]))


def test_a_key_that_the_server_repeats_is_blotted_out(make_backend, sandbox, photo):
    """LiteLLM says which key it has received."""
    sandbox.play(
        Fault(status=401, body={"error": {"message": f"Received API Key = {KEY}, token {HEADER}", "code": KEY}})
    )
    with pytest.raises(AuthenticationError) as caught:
        make_backend(api_key=KEY, headers={"X-Token": HEADER}).describe([photo], DescribeRequest(), timeout_s=5)
    assert_no_canary(everything_about(caught.value))


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (OpenAIBackend, {"base_url": "ftp://server"}),
        (OpenAIBackend, {"preset": "none such"}),
        (OpenAIBackend, {"timeout_s": 0}),
        (OpenAIBackend, {"max_tokens": 0}),
        (OpenAIBackend, {"api_key_env": KEY}),
        (AzureBackend, {"endpoint": "ftp://server", "deployment": "d"}),
        (AzureBackend, {"endpoint": "https://server", "deployment": "two words"}),
    ],
)
def test_no_error_of_a_constructor_shows_the_key(kind, wrong):
    """Whichever argument is wrong: crash reporters show the variables of the frames that an error has passed."""
    with pytest.raises(ConfigError) as caught:
        kind(**{"api_key": KEY, "headers": {"X-Token": HEADER}, **wrong})
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    assert_no_canary(str([frame.locals for frame in frames if frame.filename != __file__]))


def test_a_backend_shows_and_pickles_no_key():
    """It cannot be pickled at all."""
    backend = OpenAIBackend(api_key=KEY, headers={"X-Token": HEADER})
    shown = [repr(backend), str(backend.status()), str(backend.model_for(EmbedRequest())), backend.credential]
    shown += [repr(value) for part in (backend, backend._client) for value in vars(part).values()]
    assert_no_canary("\n".join(shown))
    with pytest.raises(TypeError) as caught:
        pickle.dumps(backend)
    assert_no_canary(everything_about(caught.value))


def test_the_credential_tells_accounts_apart_without_telling_the_key(make_backend):
    """Another key or another server is another account."""
    names = [
        make_backend(api_key=KEY).credential,
        make_backend(api_key=KEY + "x").credential,
        make_backend(api_key=KEY, base_url="http://127.0.0.1:9/v1").credential,
    ]
    assert len(set(names)) == 3
    assert names[0] == make_backend(api_key=f" {KEY}\n").credential
    assert {len(name) for name in names} == {16}  # 64 bits, so that no two accounts meet by chance


@pytest.mark.parametrize(
    "settings", [{"api_key": KEY + "é"}, {"api_key": KEY + "\x00x"}, {"headers": {"X": HEADER + "\n"}}]
)
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(settings):
    """The HTTP library would put it into its error."""
    with pytest.raises(ConfigError) as caught:
        OpenAIBackend(**settings)
    shown = "".join(traceback.TracebackException.from_exception(caught.value).format())
    assert_no_canary(str(caught.value) + repr(vars(caught.value)))
    assert "KEY +" not in shown


def test_a_secret_shows_itself_only_on_demand():
    """Its truth is whether there is one."""
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    assert bool(secret)
    assert not Secret("")
    assert_no_canary(f"{secret} {secret!r} {[secret]}")


def test_scrubbing_keeps_what_is_harmless():
    """Short values are no secrets, and a clean text stays as it is."""
    assert scrub("a cat sat on a mat", (Secret("a"),)) == "a cat sat on a mat"
    assert scrub("the mouse sat", (Secret("mouse"),)) == "the mouse sat"
    assert scrub("hunter sat", (Secret("hunter"),)) == "[hidden] sat"
    assert scrub("key Bearer abcdefgh12345 end") == "key [hidden] end"
    assert len(scrub("word " * 500)) == 300
    for harmless in ("Incorrect API key provided: xa***1.", "key_model_access_denied", "Bearer authentication failed"):
        assert scrub(harmless) == harmless
    for secret in ("key-3ax6xnjp29jd6fds", "key abcDEFghiJKL", "Bearer abcdefghijklmnopqrstuvw", "sk-proj-wordsword"):
        assert scrub(secret) == "[hidden]"


def test_answers_are_shared_by_those_who_ask_as_the_same_customer(make_backend):
    """Another key, organization, project or header is another customer; a key is not told by what tells them apart."""
    asked = [
        {},
        {"organization": "org-one"},
        {"organization": "org-two"},
        {"project": "org-one"},
        {"base_url": "http://127.0.0.1:9/v1"},
        {"api_key": KEY + "x"},
        {"headers": {"X-Tenant": "one"}},
        {"headers": {"X-Tenant": "two"}},
        {"headers": {"X-Tenant": "one", "X-Team": "two"}},
    ]
    accounts = [make_backend(**({"api_key": KEY} | options)).account for options in asked]
    assert len(set(accounts)) == len(asked)
    assert make_backend(api_key=f" {KEY}\n", headers={"x-tenant": "one"}).account == accounts[6]
    assert KEY not in str(accounts)
