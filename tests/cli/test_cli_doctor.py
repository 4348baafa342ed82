"""``vision doctor``: what is sound, what is missing, and what mends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vision_backends.backends.model_cards import model_card
from vision_backends.cli.commands.doctor import _installed, _model_file
from vision_backends.testing import SandboxServer
from vision_backends.testing.sandbox import Fault

FAKE = "vision_backends.testing.fake:FakeBackend"


def test_a_sound_installation_ends_well(vision):
    """Python, packages, models, configuration and state are looked at; the fake answers everything."""
    result = vision("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    for name in ("Python", "packages", "nanodet-g-416", "configuration", "state"):
        assert any(line.startswith(f"ok       {name} ") for line in result.stdout.splitlines()), name
    assert "fake: ready for describe, embed, embed_text, detect" in result.stdout
    assert result.stdout.endswith("describe: fake answers\nembed: fake answers\ndetect: fake answers\n")


def test_json_has_checks_rungs_and_who_answers(vision):
    """For programs that watch over an installation."""
    report = json.loads(vision("doctor", "--json").stdout)
    assert report["ok"] is True
    assert report["answers"] == {"describe": "fake", "embed": "fake", "detect": "fake"}
    assert [rung["backend"] for rung in report["rungs"]] == ["fake"]
    checks = {check["name"]: check for check in report["checks"]}
    assert "sha256 is right" in checks["efficientnet-lite0-224"]["detail"]
    assert "onnxruntime " in checks["packages"]["detail"]


def test_a_rung_that_is_not_ready_says_what_mends_it(vision, use_ladder):
    """It is no fault as long as another one answers."""
    use_ladder("rungs:Absent", FAKE)
    result = vision("doctor")
    assert result.exit_code == 0
    assert "absent: not ready\n" in result.stdout
    assert "  → Run: fetch weights\n" in result.stdout


def test_when_nobody_can_answer_a_task_the_exit_code_says_so(vision, use_ladder):
    """3, as when it had been asked."""
    use_ladder("rungs:Absent")
    result = vision("doctor")
    assert result.exit_code == 3
    assert "describe: no backend can answer\n" in result.stdout


def test_a_bad_configuration_is_a_finding(vision, fresh_user):
    """What can be looked at without it is looked at all the same."""
    (fresh_user / "vision.toml").write_text("ladde = []\n", encoding="utf-8")
    result = vision("doctor")
    assert result.exit_code == 3
    assert "broken   configuration " in result.stdout
    assert "→ Did you mean 'ladder'?" in result.stdout
    assert "ok       Python " in result.stdout


def test_an_extra_is_reported_with_the_command_that_installs_it(vision):
    """Whether it is there or not; one that no rung would use yet is not recommended."""
    checks = json.loads(vision("doctor", "--json").stdout)["checks"]
    (check,) = (check for check in checks if check["name"] == "extra ocr")
    complete = "not installed" not in check["detail"]
    assert "rapidocr" in check["detail"]
    assert check["state"] == ("ok" if complete else "missing")
    assert check["remedy"] == (None if complete else "pip install 'vision-backends[ocr]'")


def test_the_api_key_is_seen_but_never_shown(vision, monkeypatch):
    """Only that there is one."""
    absent = vision("doctor")
    assert "missing  OpenAI key" in absent.stdout
    assert "export OPENAI_API_KEY=" in absent.stdout
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    present = vision("doctor")
    assert "ok       OpenAI key" in present.stdout
    assert "secret" not in present.stdout + present.stderr


def test_a_state_file_that_can_be_written_is_named(vision, fresh_user):
    """Its folders may still have to be made."""
    (fresh_user / "vision.toml").write_text(f'ladder = ["{FAKE}"]\nstate = "new/folder/s.sqlite"\n', encoding="utf-8")
    assert "new/folder/s.sqlite, writable" in vision("doctor").stdout


def test_a_state_file_that_cannot_be_written_is_broken(vision, fresh_user):
    """It lies below something that is no folder."""
    (fresh_user / "file").touch()
    (fresh_user / "vision.toml").write_text(f'ladder = ["{FAKE}"]\nstate = "file/s.sqlite"\n', encoding="utf-8")
    result = vision("doctor")
    assert result.exit_code == 3
    assert "broken   state " in result.stdout
    assert 'state = "memory"' in result.stdout


def test_a_package_that_is_missing_is_found_by_its_metadata():
    """Nothing is imported to find out."""
    check = _installed("packages", ("pillow", "no-such-thing"), absent="broken", remedy="pip install it")
    assert (check.state, check.remedy) == ("broken", "pip install it")
    assert check.detail.endswith("no-such-thing not installed")


@pytest.mark.parametrize(
    ("change", "why"), [({"file": "gone.onnx"}, "is missing"), ({"sha256": "0" * 64}, "has the wrong sha256")]
)
def test_a_model_file_that_is_gone_or_damaged_is_broken(change, why):
    """Reinstalling mends it."""
    check = _model_file(replace(model_card("nanodet-g-416"), **change))
    assert check.state == "broken"
    assert why in check.detail
    assert check.remedy is not None
    assert check.remedy.startswith(f"{sys.executable} -m pip install --force-reinstall")


class Page(BaseHTTPRequestHandler):
    """Answers every request with what its server was told to."""

    def do_GET(self):
        """Send status, type of content and a body."""
        self.server.asked.append((self.command, self.path))
        status, kind = self.server.answer
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def serve(monkeypatch, use_ladder):
    """Start a server for the openai rung that answers every GET alike, and stop it."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT"):
            monkeypatch.delenv(name)
    made = []

    def start(status=200, kind="application/json"):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        server.answer, server.asked = (status, kind), []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        made.append((server, thread))
        use_ladder("openai", FAKE, more=f'openai.base_url = "http://127.0.0.1:{server.server_port}/v1"\n')
        return server

    yield start
    for server, thread in made:
        server.shutdown()
        thread.join()
        server.server_close()


def finding(vision, name):
    """Return the exit code and what was found of one thing."""
    result = vision("doctor", "--json")
    (check,) = (check for check in json.loads(result.stdout)["checks"] if check["name"] == name)
    return result.exit_code, check["state"], check["detail"], check["remedy"]


class TestServers:
    """The way to every server is opened, with a request that costs nothing."""

    def test_one_that_lists_its_models_is_well(self, vision, serve):
        """Nothing is posted."""
        server = serve()
        assert finding(vision, "server of openai") == (0, "ok", "nothing hinders the way to it", None)
        assert server.asked == [("GET", "/v1/models")]

    def test_one_that_is_not_there_is_named_with_the_key_that_says_where(self, vision, serve, use_ladder):
        """As when the machine is off, or the port is wrong."""
        use_ladder("openai", FAKE, more='openai.base_url = "http://127.0.0.1:9/v1"\n')
        code, state, detail, remedy = finding(vision, "server of openai")
        assert (code, state) == (3, "broken")
        assert detail.startswith("127.0.0.1:9 cannot be reached")
        assert "base_url in [openai]" in remedy

    @pytest.mark.parametrize("answer", [(404, "application/json"), (405, "text/plain"), (200, "text/html"), (308, "")])
    def test_an_address_where_no_api_begins_is_called_so(self, vision, serve, answer):
        """Mostly its /v1 is missing."""
        serve(*answer)
        code, state, detail, remedy = finding(vision, "server of openai")
        assert (code, state) == (3, "broken")
        assert "is not where an API begins" in detail
        assert "/v1" in remedy

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_key_that_is_not_accepted_is_called_so(self, vision, serve, status):
        """It is never shown."""
        serve(status)
        assert finding(vision, "server of openai")[2].endswith(f"does not accept the key ({status}).")

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_trouble_that_passes_is_none_of_the_installation(self, vision, serve, status):
        """The server is there."""
        serve(status)
        assert finding(vision, "server of openai")[:2] == (0, "ok")

    @pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    def test_a_dead_proxy_is_named_with_its_variable(self, vision, serve, monkeypatch, name):
        """A VPN has left it behind."""
        server = serve()
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        code, state, detail, remedy = finding(vision, "server of openai")
        assert (code, state) == (3, "broken")
        assert f"through the proxy 127.0.0.1:9 of {name}" in detail
        assert name in remedy
        assert server.asked == []

    @pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
    def test_missing_certificates_are_named_with_their_variable(self, vision, serve, monkeypatch, use_ladder, name):
        """Conda has left it behind; what is not encrypted does without, and is told all the same."""
        serve()
        monkeypatch.setenv(name, "/opt/conda/old/cacert.pem")
        found = (0, "missing", f"{name} names /opt/conda/old/cacert.pem, which does not exist", f"unset {name}")
        assert finding(vision, "certificates") == found
        use_ladder("openai", FAKE, more='openai.base_url = "https://127.0.0.1:9/v1"\n')
        code, state, detail, remedy = finding(vision, "server of openai")
        assert (code, state) == (3, "broken")
        assert f"{name} names /opt/conda/old/cacert.pem" in detail
        assert "Unset the variable" in remedy

    def test_without_a_key_openai_is_not_asked(self, vision, use_ladder):
        """That there is none is told elsewhere."""
        use_ladder("openai", FAKE)
        result = vision("doctor")
        assert result.exit_code == 0
        assert "server of openai" not in result.stdout
        assert "missing  OpenAI key" in result.stdout


SECOND = """
[backends.second]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key_env = "KEY_OF_SECOND"
[backends.third]
kind = "openai"
"""


def test_each_rung_that_asks_a_server_has_its_own_lines(vision, use_ladder, monkeypatch):
    """Its address, who has set it, and whether it has a key, which is never shown."""
    path = use_ladder("second", "third", "embedded", more=SECOND)
    out = vision("doctor").stdout
    assert re.search(rf"^ok +address of second +http://127.0.0.1:9, .*; set by {path}$", out, re.MULTILINE)
    assert re.search(r"^missing +key of second +KEY_OF_SECOND is not set$", out, re.MULTILINE)
    assert re.search(r"^missing +key of third +not set\n +→ export VISION_BACKENDS__THIRD__API_KEY=", out, re.MULTILINE)
    monkeypatch.setenv("KEY_OF_SECOND", "sk-very-secret")
    monkeypatch.setenv("VISION_BACKENDS__THIRD__API_KEY", "sk-very-secret")
    out = vision("doctor").stdout
    assert re.search(r"^ok +key of second +set, in KEY_OF_SECOND", out, re.MULTILINE)
    assert re.search(r"^ok +key of third +set", out, re.MULTILINE)
    assert "server of second" in out
    assert "very-secret" not in out


def test_a_key_that_is_not_sent_to_a_named_rung_is_told(vision, use_ladder, monkeypatch):
    """With the variables of that rung."""
    use_ladder("azure", "embedded", more='backends.azure = {kind = "openai", base_url = "http://gpu.test/v1"}\n')
    monkeypatch.setenv("VISION_BACKENDS__AZURE__API_KEY", "sk-very-secret")
    out = vision("doctor").stdout
    assert "backends.azure.api_key of VISION_BACKENDS__AZURE__API_KEY is not sent to http://gpu.test" in out
    assert "or VISION_BACKENDS__AZURE__API_KEY and VISION_BACKENDS__AZURE__BASE_URL." in out
    table = 'backends.azure = {kind = "azure", endpoint = "http://gpu.test", deployment = "d"}\n'
    use_ladder("azure", "embedded", more=table)
    out = vision("doctor").stdout
    assert "or VISION_BACKENDS__AZURE__API_KEY and VISION_BACKENDS__AZURE__ENDPOINT." in out
    assert "very-secret" not in out


def test_a_rung_with_a_preset_names_its_server_and_the_variable_of_its_key(vision, use_ladder, monkeypatch):
    """And never the key."""
    use_ladder("groq", "ollama", FAKE)
    monkeypatch.setenv("VISION_BACKENDS__GROQ", '{"kind": "openai", "preset": "groq", "model": "m"}')
    monkeypatch.setenv("VISION_BACKENDS__OLLAMA", '{"kind": "openai", "preset": "ollama", "model": "m"}')
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    out = vision("doctor").stdout
    assert re.search(r"^missing +key of groq +not set\n +→ export GROQ_API_KEY=", out, re.MULTILINE)
    assert re.search(r"^ok +key of ollama +none; its server may need none", out, re.MULTILINE)
    assert re.search(r"^ok +address of ollama +http://localhost:11434, .*VISION_BACKENDS__OLLAMA", out, re.MULTILINE)
    monkeypatch.setenv("GROQ_API_KEY", "sk-canary-0123456789")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody asks Groq in a test
    out = vision("doctor").stdout
    assert re.search(r"^ok +key of groq +set, in GROQ_API_KEY; it is never shown$", out, re.MULTILINE)
    assert "canary" not in out


def test_servers_are_probed_on_request_and_what_was_found_is_shown(vision, fresh_user, monkeypatch, use_ladder):
    """What it has cost stands beside it; the next look shows it with its day, and asks nothing."""
    monkeypatch.setenv("VISION_STATE", str(fresh_user / "state.sqlite"))
    with SandboxServer() as server:
        table = f'[backends.second]\nkind = "openai"\nbase_url = "{server.url}"\nmodel = "mine"\n'
        use_ladder("second", "embedded", more=table)
        assert "sees images" not in vision("doctor").stdout
        assert server.counts.get("/v1/chat/completions", 0) == 0
        result = vision("doctor", "--probe", "--json")
        (check,) = (check for check in json.loads(result.stdout)["checks"] if check["name"] == "probe of second")
        assert (check["state"], result.exit_code) == ("ok", 0)
        assert "mine sees images (found out on 20" in check["detail"]
        assert check["detail"].endswith("by 2 questions for a cost that is unknown")
        assert "mine sees images (found out on 20" in vision("doctor").stdout
        assert server.counts["/v1/chat/completions"] == 2
        server.play(Fault(status=400, body={"error": {"message": "This model does not support image input"}}))
        result = vision("doctor", "--probe")
        assert "mine sees no images (found out on 20" in result.stdout
        assert "→ Set a model that sees images for second." in result.stdout
        assert "second: ready for embed_text" in vision("doctor").stdout
        assert "probe" in vision("usage", "--by", "task").stdout


LADDER = """
[backends.down]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
model = "m"
[backends.keyless]
kind = "openai"
preset = "groq"
model = "m"
[backends.texts]
kind = "openai"
base_url = "{texts.url}"
model = "reader"
[backends.secured]
kind = "openai"
base_url = "https://127.0.0.1:{port}/v1"
model = "m"
[backends.fine]
kind = "openai"
base_url = "{fine.url}"
model = "m"
"""


@pytest.fixture
def secured(tmp_path):
    """A server whose certificate nobody vouches for but a file; that, and its port."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    files = "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    arguments = [openssl, *command.split(), *files.split()]
    subprocess.run(arguments, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.answer, server.asked = (200, "application/json"), []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield tmp_path / "cert.pem", server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_five_servers_are_each_told_what_they_lack(vision, use_ladder, monkeypatch, secured):
    """One is off, one has no key, one only reads, one has a certificate of its own, one is fine, and answers."""
    for name in ("GROQ_API_KEY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    certificate, port = secured
    with SandboxServer(keyless=True) as texts, SandboxServer(keyless=True) as fine:
        refusal = {"error": {"message": "This model does not support image input"}}
        texts.play(Fault(status=400, body=refusal, paths=("/v1/chat/completions",)))
        more = LADDER.format(texts=texts, fine=fine, port=port)
        use_ladder("down", "keyless", "texts", "secured", "fine", "embedded", more=more)
        found = json.loads(vision("doctor", "--probe", "--json").stdout)
        checks = {each["name"]: (each["state"], each["detail"], each["remedy"]) for each in found["checks"]}
        assert checks["server of down"][0] == "broken"
        state, detail, remedy = checks["server of secured"]
        assert (state, f"127.0.0.1:{port} cannot be trusted: " in detail) == ("broken", True)
        assert "SSL_CERT_FILE, or check base_url in [backends.secured]" in remedy
        assert checks["probe of texts"][0] == "missing"
        assert checks["probe of texts"][1].startswith("reader sees no images")
        assert "by 1 question for" in checks["probe of texts"][1]
        assert (checks["server of fine"][0], checks["probe of fine"][0]) == ("ok", "ok")
        assert found["answers"] == dict.fromkeys(("describe", "embed", "detect"), "fine")
        assert "server of keyless" not in checks
        assert checks["key of keyless"] == ("missing", "not set", "export GROQ_API_KEY=...")
        assert checks["probe of keyless"][1] == "There is no API key for api.groq.com."
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        out = vision("doctor").stdout
        assert re.search(r"^ok +server of secured +nothing hinders the way to it$", out, re.MULTILINE)


def test_a_server_that_cannot_be_probed_is_no_fault_of_the_installation(vision, use_ladder):
    """The reason is told."""
    table = '[backends.second]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "mine"\n'
    use_ladder("second", "embedded", more=table)
    (line,) = (line for line in vision("doctor", "--probe").stdout.splitlines() if "probe of second" in line)
    assert line.startswith("blocked")
