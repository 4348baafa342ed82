"""Whether servers do what their presets claim: real ones, each in an environment of its own, recorded for the tests.

``python benchmarks/checks/servers.py litellm --python ENV/bin/python`` starts a LiteLLM proxy with that interpreter,
with the sandbox as the server behind it; ``transformers`` starts ``transformers serve`` with a tiny model of random
weights. Each question of `QUESTIONS` goes through a recorder, and what was sent, answered and understood is printed;
``--record`` writes it to ``recordings/NAME.json``, which ``tests/backends/openai/test_openai_recorded.py`` plays.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from PIL import Image as PILImage

from vision_backends import OpenAIBackend, Router, VisionError
from vision_backends.config.presets import presets
from vision_backends.testing import SandboxServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
RECORDINGS = Path(__file__).parent / "recordings"
KEPT_HEADERS = ("content-type", "retry-after")
START_S = 180.0
DEADLINE_S = 90.0

PICTURE = PILImage.new("RGB", (64, 48), "teal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One thing that a server is asked.

    Attributes:
        name: What it is called in a recording.
        ask: Asks a router, and returns what is comparable of its answer.
        settings: Keywords of the backend that differ.
        fault: What the server behind a proxy plays meanwhile.
    """

    name: str
    ask: Callable[[Router], object]
    settings: Mapping[str, Any] = field(default_factory=dict)
    fault: str | None = None


def _describe(router: Router) -> str:
    return router.describe(PICTURE, deadline_s=DEADLINE_S).text


def _stream(router: Router) -> str:
    with router.describe_stream(PICTURE, deadline_s=DEADLINE_S) as stream:
        return "".join(stream)


def _detect(router: Router) -> list[str]:
    return [box.label for box in router.detect(PICTURE, deadline_s=DEADLINE_S)]


def _embed_text(router: Router) -> int:
    return len(router.embed_text("a red bicycle", deadline_s=DEADLINE_S).vector)


QUESTIONS = (
    Question(name="describe", ask=_describe),
    Question(name="stream", ask=_stream),
    Question(name="detect", ask=_detect),
    Question(name="embed_text", ask=_embed_text),
    Question(name="unknown model", ask=_describe, settings={"model": "no/such-model"}),
    Question(name="wrong key", ask=_describe, settings={"api_key": "sk-wrong-0123456789"}),
    Question(name="no quota behind it", ask=_describe, fault="quota_gone"),
    Question(name="a rate limit behind it", ask=_describe, fault="rate_limited"),
)


def understood(question: Question, backend: OpenAIBackend) -> dict[str, object]:
    """Return how a question has ended: the answer, or the kind of the error."""
    with Router([backend], caching=False) as router:
        try:
            return {"answer": question.ask(router)}
        except VisionError as error:
            attempts = getattr(error, "attempts", ())
            return {"error": attempts[-1].error if attempts else error.kind}


class Recorder(ThreadingHTTPServer):
    """A proxy that keeps what passes; one exchange after the other."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind = urlsplit(behind)
        self.exchanges: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Where the API begins."""
        return f"http://127.0.0.1:{self.server_port}{self.behind.path}"


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        behind = http.client.HTTPConnection(
            self.server.behind.hostname or "", self.server.behind.port, timeout=DEADLINE_S
        )
        names = ("content-type", "authorization", "accept")
        behind.request("POST", self.path, body, {name: self.headers[name] for name in names if self.headers[name]})
        reply = behind.getresponse()
        content = reply.read()
        headers = {name: reply.headers[name] for name in KEPT_HEADERS if reply.headers[name]}
        path = self.path.removeprefix(self.server.behind.path)
        self.server.exchanges.append(
            {
                "path": path,
                "sent": sorted(json.loads(body)),
                "status": reply.status,
                "headers": headers,
                "body": content.decode(errors="replace"),
            }
        )
        self.send_response(reply.status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextmanager
def _running(command: Sequence[str], port: int, *, folder: Path) -> Iterator[None]:
    """Run a server until it listens, and end it afterwards."""
    log = (folder / "log.txt").open("wb")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment |= {"HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1"}
    with log, subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT) as process:
        try:
            ends = time.monotonic() + START_S
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > ends:
                    raise SystemExit(f"{command[0]} did not start:\n{(folder / 'log.txt').read_text()[-3000:]}")
                time.sleep(0.5)
            yield
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def _listens(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/liveliness")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _litellm(python: str, folder: Path) -> Iterator[tuple[str, dict[str, Any], SandboxServer]]:
    """Yield the address of a LiteLLM proxy, the settings that ask it, and the server behind it."""
    port = _free_port()
    with SandboxServer() as behind:
        models = [
            {"model_name": name, "litellm_params": {"model": f"openai/{model}", "api_base": behind.url, "api_key": "x"}}
            for name, model in (("vision", "gpt-5.4-mini"), ("vectors", "text-embedding-3-small"))
        ]
        settings = {"num_retries": 0, "allowed_fails": 1_000, "cooldown_time": 0}
        config = {
            "model_list": models,
            "general_settings": {"master_key": "sk-master-0123456789"},
            "router_settings": settings,
            "litellm_settings": {"num_retries": 0, "telemetry": False},
        }
        (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        command = [str(Path(python).with_name("litellm")), "--config", "config.yaml", "--port", str(port)]
        with _running([*command, "--host", "127.0.0.1"], port, folder=folder):
            keywords = {"model": "vision", "embedding_model": "vectors", "api_key": "sk-master-0123456789"}
            yield f"http://127.0.0.1:{port}/v1", keywords, behind


@contextmanager
def _transformers(python: str, folder: Path) -> Iterator[tuple[str, dict[str, Any], None]]:
    """Yield the address of ``transformers serve``, and the settings that ask it for a tiny model of random weights."""
    sys.path[:0] = [str(ROOT / "tests" / "backends" / "local")]
    import tiny_captioners

    model, port = tiny_captioners.idefics3(folder / "idefics3"), _free_port()
    command = [python, "-c", "from transformers.cli.transformers import main; main()", "serve", "--host", "127.0.0.1"]
    with _running([*command, "--port", str(port), "--device", "cpu"], port, folder=folder):
        yield (
            f"http://127.0.0.1:{port}/v1",
            {"model": str(model), "embedding_model": str(model), "max_tokens": 16},
            None,
        )


SERVERS = {"litellm": _litellm, "transformers": _transformers}


def ask_all(name: str, python: str) -> list[dict[str, Any]]:
    """Start a server, ask it everything, and return what was sent, answered and understood."""
    found = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, settings, behind = stack.enter_context(SERVERS[name](python, folder))
        recorder = Recorder(url)
        Thread(target=partial(recorder.serve_forever, poll_interval=0.05), daemon=True).start()
        stack.callback(recorder.shutdown)
        for question in QUESTIONS:
            if question.fault is not None and behind is None:
                continue
            if behind is not None:
                behind.reset()
                if question.fault is not None:
                    behind.play(question.fault)
            keywords = {"timeout_s": DEADLINE_S, **settings, **question.settings}
            backend = OpenAIBackend(preset=name, base_url=recorder.url, **keywords)
            outcome = understood(question, backend)
            exchanges, recorder.exchanges = recorder.exchanges, []
            row = {"question": question.name, "settings": keywords, "exchanges": exchanges, **outcome}
            found.append(json.loads(json.dumps(row).replace(str(folder), "/models")))
    return found


def _version(name: str, python: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Ask one server, and print or record what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the environment that has it")
    parser.add_argument("--record", action="store_true", help="write recordings/NAME.json")
    options = parser.parse_args()
    found = ask_all(options.server, options.python)
    for row in found:
        sent = " + ".join(f"{each['path']} {each['status']}" for each in row["exchanges"]) or "nothing sent"
        print(f"{row['question']:24} {row.get('error') or row.get('answer')!r:.60} ({sent})")
    if options.record:
        RECORDINGS.mkdir(exist_ok=True)
        recording = {
            "server": options.server,
            "version": _version(options.server, options.python),
            "day": f"{datetime.now(UTC):%Y-%m-%d}",
            "title": presets()[options.server].title,
            "client": importlib.metadata.version("vision-backends"),
            "questions": found,
        }
        text = json.dumps(recording, indent=1, ensure_ascii=False) + "\n"
        (RECORDINGS / f"{options.server}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
