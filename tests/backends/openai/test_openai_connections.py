"""Connections: cut, dropped, late, reused and closed, against servers that send exactly these bytes."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import queue
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image as PILImage

import vision_backends
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.backends.openai.client import Client
from vision_backends.backends.openai.errors import Taxonomy
from vision_backends.backends.openai.prices import PriceList
from vision_backends.backends.openai.secret import Secret
from vision_backends.backends.openai.settings import BaseUrl
from vision_backends.backends.requests import DescribeRequest
from vision_backends.clock import SYSTEM_CLOCK, Deadline
from vision_backends.errors import InvalidReplyError, OverloadedError, RateLimitedError, TimedOutError, UnavailableError
from vision_backends.images import open_image
from vision_backends.storage.memory import MemoryStore
from vision_backends.storage.notes import Notes
from vision_backends.testing import FakeClock

KEY = "sk-canary-5e1f0b7c"

STAGES = {"silence": 0, "half a head": 20, "the head": -2_000, "the first byte": -1_999, "half": -900}
"""How much of its reply a server sends before it stops; where negative, how much is left."""


@asynccontextmanager
async def connected(url, *, clock=SYSTEM_CLOCK, headers=None):
    """Lend a client of a server."""
    base_url = BaseUrl.parse(url)
    secret = Secret(KEY)
    client = Client(
        base_url,
        api_key=secret,
        taxonomy=Taxonomy(host=base_url.host, secrets=(secret,)),
        prices=PriceList({}),
        headers={name: Secret(value) for name, value in (headers or {}).items()},
        clock=clock,
    )
    try:
        yield client
    finally:
        await client.aclose()


async def ask(client, token="a", *, timeout_s=5.0, clock=SYSTEM_CLOCK, **more):  # noqa: S107
    """Send a request and return the token of its reply."""
    deadline = Deadline(clock, timeout_s)
    request = await client.prepare("chat", lambda: {"model": "m", "token": token, **more}, deadline=deadline)
    return (await client.post(request, deadline=deadline)).payloads[0]["token"]


async def ask_for_events(client, token, **more):
    """Send a request and return the tokens of the events that come."""
    deadline = Deadline(SYSTEM_CLOCK, 5)
    request = await client.prepare("chat", lambda: {"model": "m", "token": token, **more}, deadline=deadline)
    return [event["token"] async for event in client.stream(request, deadline=deadline)]


def echo(body):
    """Return a reply of 2,000 bytes that repeats the token of a request."""
    return json.dumps({"token": json.loads(body)["token"]}).encode().ljust(2_000)


class Stages:
    """Repeats tokens, or stops at the stage that a request names until the client hangs up."""

    def __init__(self):
        self.stopped = queue.SimpleQueue()

    def __call__(self, talk):
        """Answer the requests of a connection."""
        while request := talk.receive():
            reply = echo(request[1])
            reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(reply) + reply
            stage = json.loads(request[1]).get("stage")
            if stage is None:
                talk.send(reply)
            else:
                talk.send(reply[: STAGES[stage]])
                self.stopped.put(True)
                talk.wait_for_the_end()
                return


async def stop_at(stages, work):
    """Cancel a coroutine when its server has stopped, and return when that was."""
    task = asyncio.create_task(work)
    await asyncio.to_thread(stages.stopped.get, timeout=5)
    await asyncio.sleep(0.02)  # let what was sent arrive
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    return began, caught.value


@pytest.mark.parametrize("way", [ask, ask_for_events])
@pytest.mark.parametrize("stage", STAGES)
def test_a_cancelled_call_hangs_up_and_leaves_no_reply_to_others(make_server, stage, way):
    """At every stage, within 0.2 s; 200 calls on the same session get their own replies."""
    stages = Stages()
    server = make_server(stages)

    async def main():
        async with connected(server.url) as client:
            assert await ask(client, "warm") == "warm"
            began, _ = await stop_at(stages, way(client, "cancelled", stage=stage))
            assert await asyncio.to_thread(server.hung_up.get, timeout=2) - began < 0.2
            for number in range(200):
                assert await ask(client, number) == number

    asyncio.run(main())
    assert server.connections == 2


def sockets_to(url):
    """Return how many sockets this process has open that are connected to a server."""
    port, count = urlsplit(url).port, 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(link.readlink()).startswith("socket"):
                with socket.socket(fileno=os.dup(int(link.name))) as copy:
                    peer = copy.getpeername()
                    count += isinstance(peer, tuple) and peer[1] == port
    return count


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_a_call_that_is_cancelled_while_it_sends_sends_no_more(make_server):
    """The server does not read, so what is written waits on this side: it is thrown away with the socket."""
    stages, go_on = Stages(), threading.Event()

    def talk(talk):
        if talk.number > 1:
            stages(talk)
        else:
            stages.stopped.put(True)
            go_on.wait(5)

    server = make_server(talk)

    async def main():
        async with connected(server.url) as client:
            await stop_at(stages, ask(client, "cancelled", padding="x" * 30_000_000))
            await asyncio.sleep(0.1)
            assert sockets_to(server.url) == 0
            assert [await ask(client, number) for number in range(20)] == list(range(20))
            go_on.set()

    asyncio.run(main())


def test_calls_that_are_cancelled_at_any_moment_disturb_nobody(make_server):
    """After every number of steps on the event loop, the next call gets its own reply."""
    server = make_server(Stages())

    async def main():
        async with connected(server.url) as client:
            done = 0
            for steps in range(120):
                others = [asyncio.create_task(ask(client, (steps, "other", number))) for number in range(2)]
                task = asyncio.create_task(ask(client, (steps, "cancelled")))
                for _ in range(steps % 60):
                    await asyncio.sleep(0)
                await asyncio.sleep(0.001 if steps >= 60 else 0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    done += await task == [steps, "cancelled"]
                assert await ask(client, steps) == steps
                assert await asyncio.gather(*others) == [[steps, "other", number] for number in range(2)]
            return done

    assert asyncio.run(main()) < 120


def test_a_call_that_is_cancelled_as_its_reply_is_complete_disturbs_nobody(make_server):
    """The last byte and the cancellation come in one step of the event loop."""
    last = threading.Event()

    def talk(talk):
        while request := talk.receive():
            talk.reply(echo(request[1]))
            last.set()

    server = make_server(talk)

    async def main():
        async with connected(server.url) as client:
            for number in range(200):
                last.clear()
                task = asyncio.create_task(ask(client, "cancelled"))
                while not last.is_set():  # noqa: ASYNC110 — the event is a thread's
                    await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    assert await task == "cancelled"
                assert await ask(client, number) == number

    asyncio.run(main())


def test_closing_ends_the_calls_of_its_loop_and_closes_nothing_for_good(make_server):
    """What waits for a reply hears of an outage; the next call connects anew."""
    stages = Stages()
    server = make_server(stages)

    async def main():
        async with connected(server.url) as client:
            task = asyncio.create_task(ask(client, stage="silence"))
            await asyncio.to_thread(stages.stopped.get, timeout=5)
            await client.aclose()
            with pytest.raises(UnavailableError):
                await task
            await client.aclose()
            assert await ask(client, "later") == "later"

    asyncio.run(main())


def test_a_cancellation_does_not_show_the_key(make_server):
    """Its traceback has passed the frames of the HTTP library, which hold the headers."""
    stages = Stages()
    server = make_server(stages)

    async def main():
        async with connected(server.url) as client:
            return (await stop_at(stages, ask(client, stage="silence")))[1]

    error = asyncio.run(main())
    assert error.__context__ is None
    frame = error.__traceback__
    while frame is not None:
        assert KEY not in repr(frame.tb_frame.f_locals)
        assert "aiohttp" not in frame.tb_frame.f_code.co_filename
        frame = frame.tb_next


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_request_on_a_connection_that_was_just_closed_is_sent_again(make_server, how):
    """The server closes an idle connection as it is used again: nothing was received, and a new connection works."""

    def talk(talk):
        while request := talk.receive():
            if request[1] == talk.server.received[0][1] or talk.number > 1:
                talk.reply(echo(request[1]))
            elif how == "reset":
                talk.reset()
                return
            else:
                return

    server = make_server(talk)

    async def main():
        async with connected(server.url) as client:
            return [await ask(client, number) for number in range(3)]

    assert asyncio.run(main()) == [0, 1, 2]
    assert (server.connections, len(server.received)) == (2, 4)


def test_after_a_restart_of_the_server_no_idle_connection_is_tried_a_second_time(make_server):
    """They are all as dead as the first."""

    def talk(talk):
        talk.reply(echo(talk.receive()[1]))
        if talk.receive() and talk.number > 3:
            talk.reply(echo(talk.server.received[-1][1]))

    server = make_server(talk)

    async def main():
        async with connected(server.url) as client:
            await asyncio.gather(*(ask(client, number) for number in range(3)))
            assert server.connections == 3
            assert await ask(client, "again") == "again"

    asyncio.run(main())
    assert (server.connections, len(server.received)) == (4, 3 + 2)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 20"])
def test_a_request_is_sent_again_once_and_only_where_nothing_came_back(make_server, sent):
    """A new connection that fails is an outage, and so is one that has begun to answer."""

    def talk(talk):
        if talk.number == 1:
            talk.reply(echo(talk.receive()[1]))
        talk.receive()
        talk.send(sent)
        time.sleep(0.02)
        talk.reset()

    server = make_server(talk)

    async def main():
        async with connected(server.url) as client:
            await ask(client)
            for _ in range(2):
                with pytest.raises(UnavailableError) as caught:
                    await ask(client)
                assert caught.value.code == "connection_failed"

    asyncio.run(main())
    assert len(server.received) == (1 + 1 + 1 if sent else 1 + 2 + 1)


@pytest.mark.parametrize(("pause_s", "connections"), [(0.01, 1), (1, 3)])
def test_the_connection_of_a_stream_is_used_again_unless_its_end_takes_too_long(make_server, pause_s, connections):
    """The last event says that it is the last; the end of the body comes after it."""

    def talk(talk):
        while talk.receive():
            talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            events = b'data: {"token": "a"}\n\ndata: [DONE]\n\n'
            talk.send(b"%x\r\n%b\r\n" % (len(events), events))
            time.sleep(pause_s)
            talk.send(b"0\r\n\r\n")

    server = make_server(talk)

    async def main():
        async with connected(server.url) as client:
            began = time.monotonic()
            for _ in range(3):
                assert await ask_for_events(client, "a") == ["a"]
            return time.monotonic() - began

    assert asyncio.run(main()) < 1
    assert server.connections == connections


def test_bytes_that_nobody_asked_for_are_nobodys_reply(make_server):
    """A server that answers one request twice, or says goodbye in between, does not answer the next one with it."""

    def talk(talk):
        while request := talk.receive():
            talk.reply(echo(request[1]))
            time.sleep(0.02)
            talk.reply(echo(b'{"token": "stale"}'))

    server = make_server(talk)

    async def main():
        async with connected(server.url) as client:
            for number in range(5):
                assert await ask(client, number) == number
                await asyncio.sleep(0.05)

    asyncio.run(main())
    assert server.connections == 5


def test_a_server_that_answers_before_it_was_asked_is_heard(make_server):
    """A gateway that has no room says so as soon as it is reached."""

    def talk(talk):
        talk.reply(b"no room", status=503)
        talk.wait_for_the_end()

    server = make_server(talk)

    async def main():
        async with connected(server.url) as client:
            with pytest.raises(OverloadedError):
                await ask(client)

    asyncio.run(main())
    assert server.connections == 1


def test_the_time_of_a_call_covers_a_head_that_trickles_in(make_server):
    """Each line of it would begin the time anew, if time were counted per read."""

    def talk(talk):
        talk.receive()
        talk.send(b"HTTP/1.1 200 OK\r\n")
        for number in range(100):
            talk.send(b"x-wait-%d: 1\r\n" % number)
            time.sleep(0.02)

    server = make_server(talk)

    async def main():
        async with connected(server.url) as client:
            began = time.monotonic()
            with pytest.raises(TimedOutError) as caught:
                await ask(client, timeout_s=0.2)
            assert caught.value.code == "read_timeout"
            assert time.monotonic() - began < 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "code"), [(b"", "read_timeout"), (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", "slow_reply")]
)
def test_the_timers_are_those_of_the_clock(make_server, sent, code):
    """An hour passes in a moment, and nothing else ends the wait."""
    sending = threading.Event()

    def talk(talk):
        talk.receive()
        talk.send(sent)
        sending.set()
        talk.wait_for_the_end()

    server, clock = make_server(talk), FakeClock()

    async def main():
        async with connected(server.url, clock=clock) as client:
            task = asyncio.create_task(ask(client, timeout_s=3600, clock=clock))
            await asyncio.to_thread(sending.wait, 5)
            await asyncio.sleep(0.05)
            clock.advance(3599)
            await asyncio.sleep(0.05)
            assert not task.done()
            clock.advance(2)
            with pytest.raises(TimedOutError) as caught:
                await task
            assert caught.value.code == code
            assert clock.pending == []

    asyncio.run(main())


def test_a_head_with_a_long_line_is_read(make_server):
    """Gateways send tokens and policies of many kilobytes."""
    server = make_server(lambda talk: talk.reply(echo(talk.receive()[1]), headers=["x-policy: " + "x" * 60_000]))

    async def main():
        async with connected(server.url) as client:
            assert await ask(client) == "a"

    asyncio.run(main())


def test_cookies_are_not_kept(make_server):
    """They would tie calls together that have nothing to do with each other."""

    def talk(talk):
        while request := talk.receive():
            talk.reply(echo(request[1]), headers=["set-cookie: who=me; Path=/"])

    server = make_server(talk)

    async def main():
        async with connected(server.url) as client:
            await ask(client)
            await ask(client)

    asyncio.run(main())
    assert len(server.received) == 2
    assert "cookie" not in str(server.received).lower()


def zipped(content, wbits):
    """Return bytes compressed as gzip, or as deflate."""
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize(("encoding", "wbits"), [("gzip", 31), ("deflate", 15)])
def test_a_reply_that_is_compressed_all_the_same_is_read(make_server, encoding, wbits):
    """It was asked not to be."""
    body = zipped(json.dumps({"token": "x" * 3_000_000}).encode(), wbits)
    server = make_server(lambda talk: talk.receive() and talk.reply(body, headers=[f"content-encoding: {encoding}"]))

    async def main():
        async with connected(server.url) as client:
            assert await ask(client) == "x" * 3_000_000

    asyncio.run(main())
    assert "accept-encoding: identity" in server.received[0][0].lower()


@pytest.mark.parametrize(
    ("body", "encoding", "code"),
    [
        (gzip.compress(b"x" * 100_000_000), "gzip", "too_long"),
        (b"not gzip", "gzip", "reply_cut"),
        (b"?", "br", "bad_encoding"),
        (gzip.compress(b'{"token": "a"}' + os.urandom(1000))[:-500], "gzip", "not_json"),
    ],
)
def test_a_compressed_reply_that_cannot_be_used_is_invalid(make_server, body, encoding, code):
    """A few bytes that stand for many, something else, or the half of it."""
    server = make_server(lambda talk: talk.receive() and talk.reply(body, headers=[f"content-encoding: {encoding}"]))

    async def main():
        async with connected(server.url) as client:
            with pytest.raises(InvalidReplyError) as caught:
                await ask(client, timeout_s=20)
            assert caught.value.code == code

    asyncio.run(main())


def test_a_refusal_is_known_by_its_status_whatever_becomes_of_its_body(make_server):
    """Endless, cut, or never sent to its end."""

    def talk(talk):
        request = talk.receive()
        head = b"HTTP/1.1 429 X\r\ncontent-length: 900000000\r\n\r\n"
        if b"endless" in request[1]:
            talk.send(head + b"x" * 3_000_000)
            talk.wait_for_the_end()
        else:
            talk.send(head + b'{"error": ')

    server = make_server(talk)

    async def main():
        async with connected(server.url) as client:
            for token in ("endless", "cut"):
                with pytest.raises(RateLimitedError):
                    await ask(client, token)

    asyncio.run(main())


def proxied(talk):
    """Answer as a proxy would."""
    while request := talk.receive():
        talk.reply(echo(request[1]))


def test_a_proxy_of_the_environment_is_used_but_no_password_of_netrc(make_server, monkeypatch, tmp_path):
    """Only what the address of the proxy itself says is sent to it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password hunter22\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("NO_PROXY", raising=False)
    server = make_server(proxied)
    host = server.url.removeprefix("http://").removesuffix("/v1")

    async def main():
        async with connected("http://api.example/v1") as client:
            return await ask(client)

    for address in (f"http://{host}", host, f"http://you:secret@{host}"):
        monkeypatch.setenv("HTTP_PROXY", address)
        assert asyncio.run(main()) == "a"
    heads = [head for head, _ in server.received]
    assert {head.split("\r\n")[0] for head in heads} == {"POST http://api.example/v1/chat/completions HTTP/1.1"}
    assert ["proxy-authorization" in head.lower() for head in heads] == [False, False, True]
    assert "hunter22" not in str(heads)


def test_a_proxy_is_not_told_the_key(make_server, monkeypatch):
    """It passes on what is encrypted, and needs to know the name of the server only."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    server = make_server(lambda talk: talk.receive() and talk.reply(b"", status=403))
    monkeypatch.setenv("HTTPS_PROXY", server.url.removesuffix("/v1"))

    async def main():
        async with connected("https://api.example/v1", headers={"X-Own": "secret"}) as client:
            with pytest.raises(UnavailableError, match="HTTPS_PROXY: 403") as caught:
                await ask(client)
            assert caught.value.code == "proxy_failed"

    asyncio.run(main())
    assert server.received[0][0].startswith("CONNECT api.example:443 HTTP/1.1")
    assert "uthorization" not in server.received[0][0]
    assert "secret" not in server.received[0][0]


def test_no_proxy_names_servers_that_are_reached_directly(make_server, monkeypatch):
    """A proxy left behind by a VPN does not stand before a server of one's own."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = make_server(proxied)

    async def main():
        async with connected(server.url) as client:
            return await ask(client)

    assert asyncio.run(main()) == "a"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("HTTP_PROXY", "http://me:hunter22@127.0.0.1:9", "proxy_failed"),
        ("ALL_PROXY", "socks5://me:hunter22@127.0.0.1:9", "proxy_unsupported"),
    ],
)
def test_a_proxy_that_does_not_work_is_named(monkeypatch, name, value, code):
    """With the variable that names it, without its password."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv(name, value)

    async def main():
        async with connected("http://api.example/v1") as client:
            with pytest.raises(UnavailableError, match=name) as caught:
                await ask(client)
            return caught.value

    error = asyncio.run(main())
    assert error.code == code
    assert "127.0.0.1:9" in error.message
    assert "hunter22" not in str(error)
    assert "NO_PROXY" in error.remedy


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_are_missing_are_named(monkeypatch, tmp_path, variable):
    """An environment that is gone leaves such variables behind."""
    monkeypatch.setenv(variable, str(tmp_path / "gone"))
    backend = OpenAIBackend(api_key=KEY, base_url="https://127.0.0.1:9/v1")
    with pytest.raises(UnavailableError, match=f"{variable} names .*gone, which does not exist") as caught:
        backend.warm_up(DescribeRequest())
    assert caught.value.code == "bad_certificates"


def test_a_file_that_holds_no_certificates_is_named(monkeypatch, tmp_path):
    """And nothing of the HTTP library is behind the error."""
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    monkeypatch.setenv("SSL_CERT_FILE", str(broken))

    async def main():
        async with connected("https://127.0.0.1:9/v1") as client:
            await ask(client)

    with pytest.raises(UnavailableError, match=r"broken\.pem"):
        asyncio.run(main())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that signs itself, and its key, in one file each."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    files = "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    command = [openssl, *command.split(), *files.split()]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
    return folder / "cert.pem", folder / "key.pem"


def test_a_server_is_trusted_by_the_certificates_that_the_environment_names(make_server, certificate, monkeypatch):
    """And by no others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def talk(talk):
        with suppress(ssl.SSLError), context.wrap_socket(talk.socket, server_side=True) as talk.socket:
            proxied(talk)

    server = make_server(talk)
    url = server.url.replace("http:", "https:")

    async def main():
        async with connected(url) as client:
            return [await ask(client), await ask(client)]

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert asyncio.run(main()) == ["a", "a"]
    assert server.connections == 1
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(UnavailableError, match="certificate"):
        asyncio.run(main())


def test_host_names_are_looked_up_in_threads_of_our_own(make_server):
    """The default executor belongs to the caller, and asyncio waits for it at the end."""
    server = make_server(proxied)

    async def main():
        async with connected(server.url.replace("127.0.0.1", "localhost")) as client:
            assert await ask(client) == "a"
        return {thread.name for thread in threading.enumerate()}

    names = asyncio.run(main())
    assert "vision-dns" in names
    assert not [name for name in names if name.startswith("asyncio_")]


class WatchedImage:
    """An image that notes in which threads it is encoded."""

    width = height = 64
    digest = "d"

    def __init__(self, bytes_at_hand):
        self._bytes_at_hand = bytes_at_hand
        self.threads = []

    def bytes_at_hand(self, rule):
        """Return what it was told to."""
        return self._bytes_at_hand

    def wire(self, rule):
        """Note the thread."""
        self.threads.append(threading.current_thread().name)
        return open_image(PILImage.new("RGB", (64, 64))).wire(rule)


@pytest.mark.parametrize(
    ("bytes_at_hand", "thread"), [(None, "vision-compute"), (1_000_000, "vision-compute"), (20_000, "vision-loop")]
)
def test_images_are_encoded_in_threads(make_backend, bytes_at_hand, thread):
    """The event loop has other calls to look after; a small one that goes as it is would take longer to hand over."""
    image = WatchedImage(bytes_at_hand)
    make_backend().describe([image], DescribeRequest(), timeout_s=5)
    assert image.threads == [thread]


def test_what_was_learned_is_read_in_threads(make_backend):
    """A store may have to be waited for, now and then, also where the image would be written at once."""

    class Watched(MemoryStore):
        def read(self, key):
            threads.add(threading.current_thread().name)
            return super().read(key)

    threads = set()
    backend = make_backend()
    backend.remember_in(Notes(Watched(), owner="openai", clock=SYSTEM_CLOCK))
    for _ in range(2):
        backend.describe([WatchedImage(20_000)], DescribeRequest(), timeout_s=5)
    assert "vision-compute" in threads
    assert "vision-loop" not in threads


DROPPED = """
    import asyncio, gc, logging, os, sys
    from PIL import Image
    from vision_backends.backends.openai import OpenAIBackend
    from vision_backends.backends.requests import DescribeRequest
    from vision_backends.engine.event_loop import engine_loop
    from vision_backends.images import open_image

    def sockets():
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return sum(os.readlink(link).startswith("socket") for link in links if os.path.islink(link))

    image = open_image(Image.new("RGB", (8, 8)))
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # in debug mode it warns of every pause of a busy machine

    async def ask(backend):
        await backend.describe([image], DescribeRequest(), timeout_s=10)

    def drop(run):
        backend = OpenAIBackend(api_key="sk-x", base_url=sys.argv[1])
        run(lambda: ask(backend))
        if "close" in sys.argv:
            backend.close()

    def run_alone(make):
        asyncio.run(make())

    engine_loop().run(lambda: asyncio.sleep(0))
    before = sockets()
    for run in (engine_loop().run, run_alone):
        for _ in range(3):
            drop(run)
            gc.collect()
            engine_loop().run(lambda: asyncio.sleep(0.05))
        print(sockets() - before)
    backend = OpenAIBackend(api_key="sk-x", base_url=sys.argv[1])
    engine_loop().run(lambda: ask(backend))  # left open at the end
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_backend_that_is_dropped_leaves_neither_sockets_nor_warnings(sandbox, how):
    """On the engine's event loop, on a caller's own, and at the end of the interpreter."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(DROPPED), sandbox.url, how]
    env = {**os.environ, "PYTHONPATH": str(Path(vision_backends.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert (done.stdout, done.stderr) == ("0\n0\n", "")
