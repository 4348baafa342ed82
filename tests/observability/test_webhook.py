"""Posting in the background: over a real socket, to a server that plays trouble."""

import json
import logging
import pickle
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vision_backends import ConfigError
from vision_backends.config.web_address import is_web_address
from vision_backends.observability.webhook import MAX_LEFT, MAX_WAITING, Webhook

CANARY = "T0123-canary-B0456"


class Inbox:
    """A server that keeps what it is sent and answers as scripted; 200 when the script has ended."""

    def __init__(self):
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox.received.append((self.path, self.headers["Content-Type"], json.loads(body)))
                inbox.arrived.set()
                inbox.open.wait(5)
                self.answer(inbox.script.pop(0) if inbox.script else 200)
                inbox.answered.release()

            def do_GET(self):
                inbox.received.append((self.path, None, "followed"))
                self.answer(200)

            def answer(self, status):
                if status == "drip":
                    while not inbox.ended.wait(0.02):  # well within the timeout of one read
                        self.wfile.write(b"H")
                    self.close_connection = True
                    return
                if status is None or isinstance(status, bytes):
                    self.wfile.write(status or b"")
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Location", inbox.url + "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.received, self.script = [], []
        self.arrived, self.open, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.answered = threading.Semaphore(0)
        self.open.set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/{CANARY}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.005,))
        self.thread.start()

    def close(self):
        """Let nobody hang, and end."""
        self.open.set()
        self.ended.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def wait_for(webhook):
    """Return when nothing is waiting any more."""
    thread = webhook._thread
    if thread is not None:
        thread.join(5)


@pytest.fixture
def inbox(monkeypatch):
    """A server on loopback, asked directly."""
    monkeypatch.setenv("no_proxy", "*")
    running = Inbox()
    yield running
    running.close()


def test_messages_arrive_as_json_in_order(inbox):
    """And closing waits for them."""
    webhook = Webhook(inbox.url)
    for number in range(3):
        webhook.post({"number": number})
    webhook.close()
    assert inbox.received == [(f"/services/{CANARY}", "application/json", {"number": number}) for number in range(3)]


def test_no_thread_stays_when_nothing_is_waiting(inbox):
    """Not even where nobody closes it; the next message starts another."""
    webhook = Webhook(inbox.url)
    for number in (1, 2):
        webhook.post({})
        wait_for(webhook)
        assert len(inbox.received) == number
        assert webhook._thread is None


@pytest.mark.parametrize("status", [429, 500, 503, None])
def test_what_may_pass_is_tried_once_more(inbox, status, caplog):
    """A reply that says so, or a connection that breaks."""
    inbox.script = [status]
    webhook = Webhook(inbox.url, pause_s=0)
    webhook.post({})
    webhook.close()
    assert len(inbox.received) == 2
    assert caplog.text == ""


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 403, 404, 410])
def test_what_stays_is_not_tried_again_and_no_redirect_followed(inbox, status, caplog):
    """A wrong address stays wrong, and an alert is for nobody else."""
    inbox.script = [status]
    webhook = Webhook(inbox.url, pause_s=0)
    webhook.post({})
    webhook.close()
    assert len(inbox.received) == 1
    assert f"HTTP {status}" in caplog.text
    assert CANARY not in caplog.text


def test_trouble_is_logged_once_until_it_is_over(inbox, caplog):
    """Not for each message."""
    webhook = Webhook(inbox.url, pause_s=0)
    for script in ([404], [404], [], [404]):
        inbox.script = script
        webhook.post({})
        wait_for(webhook)
    assert caplog.text.count("did not reach its webhook") == 2
    assert len(inbox.received) == 4


def test_a_server_that_hangs_is_left_after_its_time(inbox, caplog):
    """Twice, and nobody waits for it."""
    inbox.open.clear()
    webhook = Webhook(inbox.url, timeout_s=0.5, pause_s=0)
    webhook.post({})
    webhook.close()
    assert len(inbox.received) == 2
    assert "(TimeoutError)" in caplog.text


def test_replies_that_trickle_in_for_ever_hold_up_no_other_message(inbox, caplog):
    """Each is left after its time; when too many are left, that is said instead of starting more."""
    inbox.script = ["drip"] * MAX_LEFT
    webhook = Webhook(inbox.url, timeout_s=0.25, pause_s=0)
    for number in range(MAX_LEFT + 1):
        webhook.post({"number": number})
    wait_for(webhook)
    assert "(TimeoutError)" in caplog.text
    inbox.ended.set()
    for _ in range(MAX_LEFT):
        assert inbox.answered.acquire(timeout=5)
    assert sorted(body["number"] for _, _, body in inbox.received) == list(range(MAX_LEFT))
    webhook.post({"number": "last"})
    webhook.close(timeout_s=5)
    assert inbox.received[-1][2] == {"number": "last"}


def test_a_server_that_is_not_there_hurts_nobody(caplog):
    """Its name in the log is the name of the trouble, never its address."""
    webhook = Webhook(f"http://127.0.0.1:1/{CANARY}", pause_s=0)
    webhook.post({})
    webhook.close()
    assert "(ConnectionRefusedError)" in caplog.text
    assert CANARY not in caplog.text


def test_a_server_that_speaks_something_else_hurts_nobody(inbox, caplog):
    """It is not asked again: it will not have learned it in a second."""
    inbox.script = [b"220 mail.example ready\r\n"]
    webhook = Webhook(inbox.url, pause_s=0)
    webhook.post({})
    webhook.close()
    assert "(BadStatusLine)" in caplog.text
    assert len(inbox.received) == 1


def test_what_is_too_much_is_dropped(inbox, caplog):
    """A slow webhook costs a bounded amount of memory, and posting never waits."""
    inbox.open.clear()
    webhook = Webhook(inbox.url)
    webhook.post({})
    assert inbox.arrived.wait(5)
    for _ in range(MAX_WAITING + 5):
        webhook.post({})
    assert len(webhook._waiting) == MAX_WAITING
    assert caplog.text.count("others are waiting") == 1
    inbox.open.set()
    webhook.close(timeout_s=10)
    assert len(inbox.received) == 1 + MAX_WAITING


def test_closing_does_not_wait_for_ever(inbox):
    """Nor does it take anything afterwards."""
    inbox.open.clear()
    webhook = Webhook(inbox.url)
    webhook.post({})
    assert inbox.arrived.wait(5)
    thread = webhook._thread
    webhook.close(timeout_s=0.005)
    webhook.post({})
    inbox.open.set()
    thread.join(5)
    webhook.close()
    assert len(inbox.received) == 1


def test_closing_cuts_the_pause_before_the_second_try(inbox):
    """A program that ends does not sit it out."""
    inbox.script = [500]
    webhook = Webhook(inbox.url, pause_s=60)
    webhook.post({})
    assert inbox.arrived.wait(5)
    webhook.close(timeout_s=5)
    assert len(inbox.received) == 2


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.slack.com/x",
        "ftp://a/b",
        "file:///etc/passwd",
        "https://",
        "https://u:p@a/b",
        "http://a:x",
        "http://[",
        "http://a/b c",
        "http://a/ü",
    ],
)
def test_only_web_addresses_will_do(url):
    """Said without the address."""
    assert not is_web_address(url)
    with pytest.raises(ConfigError) as caught:
        Webhook(url)
    assert str(caught.value) == "The webhook is not an http:// or https:// address."


def test_the_address_is_shown_nowhere(caplog):
    """Not in reprs, pickles, nor in the traceback of the refusal."""
    caplog.set_level(logging.DEBUG)
    webhook = Webhook(f"https://hooks.example/{CANARY}")
    assert CANARY not in repr(webhook)
    with pytest.raises(TypeError):
        pickle.dumps(webhook)
    address = [f"htps://hooks.example/{CANARY}"]
    try:
        Webhook(address.pop())
    except ConfigError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert CANARY not in "".join(shown.format()).replace("CANARY", "")
