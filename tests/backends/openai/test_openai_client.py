"""The line to the server: a real socket, and everything that can go wrong on it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import vision_backends
from vision_backends.backends.openai.connections import MAX_REPLY_BYTES
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedTextRequest
from vision_backends.errors import (
    BackendError,
    InvalidReplyError,
    QuotaExhaustedError,
    RateLimitedError,
    TimedOutError,
    UnavailableError,
    VisionError,
)
from vision_backends.testing import FakeClock
from vision_backends.testing.sandbox import FAULTS, Fault


def describe(backend, photo, timeout_s=5.0):
    """Return one description."""
    return backend.describe([photo], DescribeRequest(), timeout_s=timeout_s)[0]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("quota_gone", QuotaExhaustedError),
        ("litellm_quota_gone", RateLimitedError),
        ("html_200", InvalidReplyError),
        ("null_200", InvalidReplyError),
        ("empty_200", InvalidReplyError),
        ("invalid_json", InvalidReplyError),
        ("error_200", UnavailableError),
        ("half_body", InvalidReplyError),
        ("reset_midway", InvalidReplyError),
        ("connection_reset", UnavailableError),
        ("connection_closed", UnavailableError),
        ("redirect", UnavailableError),
        ("plain_text_500", UnavailableError),
    ],
)
def test_one_call_is_one_request_whatever_comes_back(backend, sandbox, photo, fault, expected):
    """Nothing underneath retries, and no redirect is followed."""
    sandbox.play(fault)
    with pytest.raises(expected):
        describe(backend, photo)
    assert sum(sandbox.counts.values()) == 1


@pytest.mark.parametrize("fault", ["slow", "stall", "stall_midway", "slow_drip"])
def test_the_time_limit_holds_for_the_whole_call(backend, sandbox, photo, fault):
    """Also for a server that keeps sending a little now and then."""
    sandbox.play(fault)
    started = time.monotonic()
    with pytest.raises(TimedOutError):
        describe(backend, photo, timeout_s=0.15)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("delivery", [{"sends": "half", "then": "stall"}, {"drip_s": 0.02}])
@pytest.mark.parametrize(("status", "expected"), [(402, QuotaExhaustedError), (429, RateLimitedError)])
def test_an_error_whose_body_does_not_end_is_known_by_its_status(
    make_backend, sandbox, photo, delivery, status, expected
):
    """Its words are waited for briefly, and the rest of the deadline is left for others."""
    clock = FakeClock()
    sandbox.play(Fault(status=status, body="word " * 100_000, headers={"retry-after": "300"}, **delivery))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(describe, make_backend(clock=clock, timeout_s=60), photo, timeout_s=60)
        clock.wait_for_timer(within_s=2)
        clock.advance(2)
        with pytest.raises(expected) as caught:
            call.result(timeout=30)
    assert caught.value.retry_after_s == 300


def test_the_configured_limit_holds_even_if_the_router_allows_more(make_backend, sandbox, photo):
    """timeout_s of the configuration is the shorter of two limits."""
    sandbox.play("stall")
    with pytest.raises(TimedOutError):
        describe(make_backend(timeout_s=0.4), photo, timeout_s=60)


def test_a_server_that_is_not_there_is_unavailable(make_backend, photo):
    """Nobody listens on port 9."""
    with pytest.raises(UnavailableError) as caught:
        describe(make_backend(base_url="http://127.0.0.1:9/v1"), photo)
    assert caught.value.code == "connection_failed"
    assert "127.0.0.1:9" in caught.value.message


@pytest.mark.skipif(sys.platform != "linux", reason="a full queue drops connections on Linux only")
def test_a_server_that_accepts_no_connection_is_unavailable(make_backend, photo):
    """Nothing was sent, hence nothing billed: that is no timeout of an answer."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # fill its queue
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        backend = make_backend(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        with pytest.raises(UnavailableError) as caught:
            describe(backend, photo, 0.1)
    assert caught.value.code == "connect_timeout"


def test_without_time_nothing_is_sent(backend, sandbox, photo):
    """The deadline may pass before this rung is reached."""
    with pytest.raises(TimedOutError):
        describe(backend, photo, 0)
    assert sum(sandbox.counts.values()) == 0


def test_an_event_stream_that_nobody_asked_for_is_read_all_the_same(backend, sandbox, photo):
    """One server's Responses API streams unless told otherwise, and some do it even then."""
    expected = describe(backend, photo).text
    sandbox.play("streamed")
    assert describe(backend, photo).text == expected


def test_a_stream_of_nothing_is_an_invalid_reply(make_backend, sandbox, photo):
    """On every endpoint."""
    sandbox.play(Fault(status=200, body="data: [DONE]\n\n"))
    backend = make_backend()
    with pytest.raises(InvalidReplyError):
        backend.embed_text(["a"], EmbedTextRequest(), timeout_s=5)
    with pytest.raises(InvalidReplyError):
        describe(backend, photo)


def test_a_reply_without_end_is_not_read_to_its_end(make_backend, sandbox):
    """Memory is bounded."""
    sandbox.play(Fault(status=200, body="x" * (MAX_REPLY_BYTES + 1)))
    with pytest.raises(InvalidReplyError) as caught:
        make_backend().embed_text(["a"], EmbedTextRequest(), timeout_s=20)
    assert caught.value.code == "too_long"


def test_the_latest_reply_says_what_is_left(backend, sandbox, photo):
    """Per model, and from errors as well."""
    assert backend.rate_limits(DescribeRequest()) is None
    describe(backend, photo)
    assert backend.rate_limits(DescribeRequest()).remaining_requests == 29_999
    assert backend.rate_limits(EmbedTextRequest()) is None
    sandbox.play("rate_limited")
    with pytest.raises(RateLimitedError) as caught:
        describe(backend, photo)
    assert caught.value.retry_after_s == 20
    assert backend.rate_limits(DescribeRequest()).remaining_requests == 0
    sandbox.play("no_limit_headers")
    describe(backend, photo)
    assert backend.rate_limits(DescribeRequest()).remaining_requests == 0


def test_connections_are_kept_and_shared(backend, sandbox, photo):
    """Twenty calls from four threads need no more than four connections."""
    before = sandbox.connections
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: describe(backend, photo), range(20)))
    assert sandbox.connections - before <= 4


def test_a_closed_backend_opens_again_when_it_is_asked(backend, photo):
    """Closing twice is harmless, and no state stays behind."""
    describe(backend, photo)
    backend.close()
    backend.close()
    assert describe(backend, photo).text


def test_an_abandoned_stream_gives_its_connection_back(backend, sandbox, photo):
    """Whoever stops listening closes the generator, which closes the response."""
    before = sandbox.connections
    for _ in range(3):
        stream = backend.describe_stream(photo, DescribeRequest(), timeout_s=5)
        next(stream)
        stream.close()
    assert describe(backend, photo).text
    assert sandbox.connections - before <= 4


def test_every_fault_ends_in_an_answer_or_a_typed_error(backend, sandbox, photo):
    """Nothing of the HTTP library gets out, not even as the context of an error."""
    errors = []
    for name in FAULTS:
        for ask in (
            lambda: describe(backend, photo, 0.1),
            lambda: list(backend.describe_stream(photo, DescribeRequest(), timeout_s=0.1)),
            lambda: backend.detect([photo], DetectRequest(), timeout_s=0.1),
            lambda: backend.embed_text(["a", "b"], EmbedTextRequest(), timeout_s=0.1),
        ):
            sandbox.reset()
            sandbox.play(name)
            try:
                ask()
            except VisionError as error:
                errors.append(error)
    assert len(errors) > 300
    origins = {type(error.__context__).__module__.partition(".")[0] for error in errors}
    assert not origins & {"aiohttp", "asyncio"}
    assert all(error.code or error.status for error in errors if isinstance(error, BackendError))


def test_no_variable_of_the_environment_changes_what_is_sent(make_backend, sandbox, photo, monkeypatch):
    """The SDK would read an organization, a project and an admin key; the configuration is the only reader here."""
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "from-the-environment")
    describe(make_backend(api_key=None), photo)
    assert "from-the-environment" not in str(sandbox.requests[-1].headers)


def test_what_is_configured_is_sent(make_backend, sandbox, photo):
    """Organization, project and headers of one's own."""
    describe(make_backend(organization="org-1", project="proj-1", headers={"X-Team": "vision"}), photo)
    sent = sandbox.requests[-1].headers
    assert (sent["openai-organization"], sent["openai-project"], sent["x-team"]) == ("org-1", "proj-1", "vision")


def run(script, *arguments):
    """Run a script in an interpreter of its own and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments]
    env = {**os.environ, "PYTHONPATH": str(Path(vision_backends.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_connects_anew(sandbox):
    """Two processes on one connection would get each other's replies."""
    script = """
        import asyncio, gc, os, sys
        from PIL import Image
        from vision_backends.backends.openai import OpenAIBackend
        from vision_backends.backends.requests import DescribeRequest
        from vision_backends.engine.event_loop import engine_loop
        from vision_backends.images import open_image

        backend = OpenAIBackend(api_key="sk-x", base_url=sys.argv[1])
        image = open_image(Image.new("RGB", (8, 8)))
        describe = lambda: backend.describe([image], DescribeRequest(), timeout_s=10)
        ask = lambda: engine_loop().run(describe)[0].text
        expected = ask()
        child = os.fork()
        same = ask() == expected
        if child == 0:
            backend.close()
            del backend, describe
            gc.collect()
            engine_loop().run(lambda: asyncio.sleep(0.05))
            os._exit(0 if same else 1)
        print(same and os.waitpid(child, 0)[1] == 0 and ask() == expected)
        engine_loop().run(backend.aclose)
    """
    before = sandbox.connections
    assert run(script, sandbox.url) == "True\n"
    assert sandbox.connections - before == 2


def test_importing_the_backend_imports_neither_an_http_client_nor_numpy():
    """They are needed at the first call only, and take half a second."""
    script = """
        import sys
        from vision_backends.backends.openai import OpenAIBackend
        from vision_backends.backends.requests import DescribeRequest
        OpenAIBackend(api_key="sk-x").check(DescribeRequest())
        print(sorted({"aiohttp", "openai", "httpx2", "numpy", "PIL"} & set(sys.modules)))
    """
    assert run(script) == "[]\n"


def test_nothing_is_sent_to_where_a_server_redirects(make_backend, photo):
    """The image would go to a server that nobody has configured."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            asked.append(self.server)
            self.send_response(307)
            self.send_header("location", f"http://127.0.0.1:{other.server_port}/v1/chat/completions")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args):
            """Say nothing."""

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as first,
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other,
    ):
        for server in (first, other):
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with pytest.raises(UnavailableError, match="redirects"):
            describe(make_backend(base_url=f"http://127.0.0.1:{first.server_port}/v1", api="chat"), photo)
        first.shutdown()
        other.shutdown()
    assert asked == [first]
