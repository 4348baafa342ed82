"""Images at web addresses: off unless they are allowed, and never a way to what only this machine can reach."""

import io
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image as PILImage

from vision_backends import AllBackendsFailedError, ImageTooLargeError, InvalidImageError, Router, open_image
from vision_backends.images import ImageLimits
from vision_backends.images.urls import fetch, may_be_asked, without_query
from vision_backends.testing import FakeBackend

ALLOWED = ImageLimits(allow_urls=True, allow_private_urls=True)
PUBLIC_ONLY = ImageLimits(allow_urls=True)


def png():
    """Return an image."""
    file = io.BytesIO()
    PILImage.new("RGB", (64, 48), "teal").save(file, "PNG")
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        """Say nothing."""

    def do_GET(self):
        """Answer as the path says, and remember the request."""
        self.server.seen.append((self.path, dict(self.headers)))
        path = self.path.partition("?")[0]
        if path.startswith("/to/"):
            self._send(302, b"", location=self.path.partition("?")[2])
        elif path == "/loop":
            self._send(302, b"", location="/loop")
        elif path == "/missing":
            self._send(404, b"nothing")
        elif path == "/gzip":
            self._send(200, b"x", **{"content-encoding": "gzip"})
        elif path == "/cut":
            self._send(200, png(), **{"content-length": str(len(png()) + 10)})
        elif path == "/page":
            self._send(200, b"<html>not an image</html>", **{"content-type": "image/png"})
        elif path == "/drip":
            self._drip()
        elif path == "/endless":
            self._endless()
        else:
            self._send(200, png())

    def _send(self, status, content, **headers):
        self.send_response(status)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def _drip(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(60):
            if not self._write(b"x"):
                return
            time.sleep(0.05)

    def _endless(self):
        self.send_response(200)
        self.end_headers()
        while self._write(b"x" * 65536):
            pass

    def _write(self, content):
        try:
            self.wfile.write(content)
        except OSError:
            self.close_connection = True
            return False
        return True


@pytest.fixture
def web():
    """A web server on loopback: its address, and the requests that it has seen."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


@contextmanager
def refused(words):
    """Expect an error of the caller's with these words, and a remedy."""
    with pytest.raises(InvalidImageError, match=words) as caught:
        yield caught
    assert caught.value.remedy


class TestSwitch:
    """Nothing is fetched unless that is allowed."""

    def test_it_is_off_by_default(self, web):
        """The remedy says what to do."""
        with refused("off by design") as caught:
            open_image(f"{web.url}/a.png?token=secret")
        assert "allow_urls = true" in caught.value.remedy
        assert "secret" not in str(caught.value)
        assert web.seen == []

    def test_an_allowed_one_is_an_image_like_any_other(self, web):
        """It is decoded, checked and cached by its content."""
        backend = FakeBackend("seer")
        with Router([backend], image_limits=ALLOWED) as router:
            assert router.describe(f"{web.url}/a.png").text == "seer says: 64×48 px"
            assert router.describe(png()).trace.cached
            assert router.ask([f"{web.url}/a.png", png()], "What?").text.endswith(": 64×48 px, 64×48 px")

    def test_nothing_is_told_but_what_is_wanted(self, web):
        """No cookie, no language, no version."""
        fetch(f"{web.url}/a%20b/ü.png?x=1&y=ä", limits=ALLOWED)
        ((path, headers),) = web.seen
        assert path == "/a%20b/%C3%BC.png?x=1&y=%C3%A4"
        assert {name.lower() for name in headers} == {"host", "accept", "accept-encoding", "user-agent", "connection"}
        assert headers["Host"] == web.url.removeprefix("http://")

    @pytest.mark.parametrize("url", ["ftp://x.org/a.png", "file:///etc/passwd", "s3://b/a.png", "gopher://x/"])
    def test_no_other_kind_of_address_is_fetched(self, url):
        """Whatever is allowed."""
        with refused("never fetched"):
            open_image(url, limits=ALLOWED)


class TestPlaces:
    """Only addresses that everybody can reach are asked, unless others are allowed."""

    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",  # noqa: S104 — refused, not bound
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "168.63.129.16",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fe80::1%eth0",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2001:0:7f00:1::1",
            "2001:db8::1",
            "not an address",
        ],
    )
    def test_what_only_this_machine_reaches_is_not_asked(self, address):
        """In whichever form it is written."""
        assert not may_be_asked(address)

    @pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"])
    def test_what_everybody_reaches_may_be_asked(self, address):
        """By either protocol."""
        assert may_be_asked(address)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
    def test_no_spelling_of_this_machine_is_asked(self, web, host):
        """Names are looked up before they are judged."""
        with refused("cannot be fetched"):
            fetch(f"http://{host}:{web.server_port}/a.png", limits=PUBLIC_ONLY)
        assert web.seen == []

    def test_one_private_address_among_others_is_enough_to_refuse(self):
        """Whoever owns the name may have put it there."""
        with refused("private network") as caught:
            fetch("http://x.org/", limits=PUBLIC_ONLY, resolve=lambda *_: ["8.8.8.8", "10.0.0.1"], connect=None)
        assert "allow_private_urls" in caught.value.remedy

    def test_a_name_is_looked_up_once_and_its_checked_address_is_asked(self, web):
        """What it means a moment later does not count."""
        answers = [["8.8.8.8"], ["127.0.0.1"]]
        asked = []

        def connect(address, port, timeout_s):
            asked.append((address, port))
            return socket.create_connection(("127.0.0.1", web.server_port), timeout=timeout_s)

        fetch("http://x.org/a.png", limits=PUBLIC_ONLY, resolve=lambda *_: answers.pop(0), connect=connect)
        assert asked == [("8.8.8.8", 80)]
        assert web.seen[0][1]["Host"] == "x.org"
        assert len(answers) == 1

    def test_the_next_address_is_tried_if_one_is_dead(self, web):
        """Of a name that has several."""

        def connect(address, _port, timeout_s):
            if address == "8.8.8.8":
                raise ConnectionRefusedError
            return socket.create_connection(("127.0.0.1", web.server_port), timeout=timeout_s)

        given = {"resolve": lambda *_: ["8.8.8.8", "8.8.4.4"], "connect": connect}
        assert fetch("http://x.org/a.png", limits=PUBLIC_ONLY, **given) == png()

    @pytest.mark.parametrize(
        "url", ["http://user:pw@x.org/", "http://", "http://[::1", "http://x.org:99999/", f"http://{'a' * 70}.org/"]
    )
    def test_what_is_no_address_is_refused(self, url):
        """Without its password."""
        with refused("fetched|valid address") as caught:
            fetch(url, limits=ALLOWED)
        assert "pw" not in str(caught.value)

    def test_a_url_is_shown_without_what_may_be_a_credential(self):
        """In messages and names."""
        assert without_query("https://me:pw@x.org/a.png?sig=1#f") == "https://x.org/a.png"


class TestRedirects:
    """Are followed a few times, each to a place that is checked again."""

    def test_a_redirect_is_followed(self, web):
        """Relative or absolute."""
        for target in ("/a.png", f"{web.url}/a.png"):
            assert fetch(f"{web.url}/to/?{target}", limits=ALLOWED) == png()

    def test_a_redirect_to_this_machine_is_refused(self, web):
        """Though the first address was everybody's."""

        def connect(_address, _port, timeout_s):
            return socket.create_connection(("127.0.0.1", web.server_port), timeout=timeout_s)

        def resolve(host, _port):
            return ["127.0.0.1"] if host == "127.0.0.1" else ["8.8.8.8"]

        given = {"resolve": resolve, "connect": connect}
        with refused("private network"):
            fetch(f"http://x.org/to/?{web.url}/a.png", limits=PUBLIC_ONLY, **given)
        with refused("not an http"):
            fetch("http://x.org/to/?file:///etc/passwd", limits=PUBLIC_ONLY, **given)
        assert [path for path, _ in web.seen if path == "/a.png"] == []

    def test_a_circle_ends(self, web):
        """After five."""
        with refused("more than 5 times"):
            fetch(f"{web.url}/loop", limits=ALLOWED)
        assert len(web.seen) == 6


class TestLimits:
    """Of bytes and seconds, and of what counts as a document."""

    @pytest.mark.parametrize(
        ("path", "words"),
        [("missing", "status 404"), ("gzip", "compresses"), ("cut", "is cut")],
    )
    def test_what_is_no_whole_document_is_refused(self, web, path, words):
        """With what is wrong."""
        with refused(words):
            fetch(f"{web.url}/{path}", limits=ALLOWED)

    def test_what_is_no_image_is_refused_whatever_its_type_says(self, web):
        """It is recognised by its bytes."""
        with pytest.raises(InvalidImageError):
            open_image(f"{web.url}/page", limits=ALLOWED)

    def test_no_more_is_read_than_is_allowed(self, web):
        """Whether the server says how much there is or not."""
        small = ImageLimits(allow_urls=True, allow_private_urls=True, max_bytes=100_000)
        with pytest.raises(ImageTooLargeError):
            fetch(f"{web.url}/endless", limits=small)
        with pytest.raises(ImageTooLargeError):
            fetch(f"{web.url}/a.png", limits=ImageLimits(allow_urls=True, allow_private_urls=True, max_bytes=10))

    def test_a_server_that_drips_is_left_in_time(self, web):
        """Though it is never silent for long."""
        with refused("took too long"):
            fetch(f"{web.url}/drip", limits=ALLOWED, within_s=0.3)

    def test_the_deadline_of_the_call_holds(self, web):
        """A slow server is left behind, and nobody is asked."""
        backend = FakeBackend()
        late = pytest.raises(AllBackendsFailedError, match="not read within")
        with Router([backend], image_limits=ALLOWED) as router, late:
            router.describe(f"{web.url}/drip", deadline_s=0.2)
        assert backend.calls == []

    def test_a_dead_port_is_told(self):
        """As the input's fault: no rung is asked."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        backend = FakeBackend()
        with Router([backend], image_limits=ALLOWED) as router, refused("does not answer"):
            router.describe(f"http://127.0.0.1:{port}/a.png")
        assert backend.calls == []
