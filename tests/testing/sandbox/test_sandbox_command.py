"""The sandbox from a terminal."""

from __future__ import annotations

import re
import threading

import openai
import pytest
from openai import OpenAI

from vision_backends.testing.sandbox import Script
from vision_backends.testing.sandbox.command import SandboxOptions, serve


def _served(options, use):
    """Serve in a thread, use the server, stop it; return what was written."""
    written, ready, stop = [], threading.Event(), threading.Event()

    def write(text):
        written.append(text)
        ready.set()

    thread = threading.Thread(target=serve, args=(options,), kwargs={"write": write, "stop": stop})
    thread.start()
    try:
        assert ready.wait(5)
        url, key = re.findall(r"=(\S+)", written[0])
        with OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            use(client)
    finally:
        stop.set()
        thread.join()
    return "".join(written)


def _ask(client):
    return client.embeddings.create(model="m", input="hi")


def test_it_prints_the_two_lines_that_a_user_needs():
    """And what they say works."""
    text = _served(SandboxOptions(), _ask)
    assert re.fullmatch(r"export OPENAI_BASE_URL=http://127\.0\.0\.1:\d+/v1\nexport OPENAI_API_KEY=sk-sandbox\n", text)


def test_options_play_scripts_keep_quotas_and_record(tmp_path):
    """A script from a file, a quota after it, and the recording."""
    Script.of("server_error").save(tmp_path / "in.json")
    options = SandboxOptions(script=str(tmp_path / "in.json"), record=str(tmp_path / "out.json"), quota_after=1)

    def use(client):
        with pytest.raises(openai.InternalServerError):
            _ask(client)
        _ask(client)
        with pytest.raises(openai.RateLimitError):
            _ask(client)

    _served(options, use)
    assert Script.load(tmp_path / "out.json") == Script.of("server_error", ("healthy", 2))


def test_options_play_chaos_and_single_faults():
    """``--seed`` with ``--rate``, and ``--play``."""

    def use(client):
        with pytest.raises(openai.RateLimitError):
            _ask(client)

    _served(SandboxOptions(play="quota_gone"), use)
    _served(SandboxOptions(play="rate_limited", seed=1, rate=1.0), use)


@pytest.mark.parametrize(
    "fields", [{"play": "no_such_fault"}, {"script": "no/such/file"}, {"rpm": -1}, {"seed": 1, "rate": 7}]
)
def test_a_wrong_option_is_said_before_anything_is_served(fields):
    """And nothing is written."""
    with pytest.raises((ValueError, OSError)):
        serve(SandboxOptions(**fields), write=pytest.fail)
