"""What people are told, how often, and where."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image as PILImage

from vision_backends import AuthenticationError, ModelNotFoundError, QuotaExhaustedError, Router, UnavailableError
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.config.loading import load_settings
from vision_backends.errors import ConfigError, OverloadedError, RateLimitedError
from vision_backends.health.budgets import Limits
from vision_backends.observability.alerts import Alerts, Notice, notice_of
from vision_backends.observability.webhook import Webhook
from vision_backends.storage import open_store
from vision_backends.testing import FakeBackend, FakeClock, SandboxServer
from vision_backends.types import Usage

pytestmark = pytest.mark.usefixtures("patient_calls")

IMAGE = PILImage.new("RGB", (64, 48), "teal")
HOUR_S = 3_600
CANARY = "T0123-canary-B0456"

QUOTA = QuotaExhaustedError("No money.", code="insufficient_quota")
KEY = AuthenticationError("Wrong key.", code="invalid_api_key")
MODEL = ModelNotFoundError("No such model.", code="model_not_found")
OUTAGE = UnavailableError("Down.", code="server_error")


@pytest.fixture
def clock():
    """Time that moves when it is told to."""
    return FakeClock()


@pytest.fixture
def best(clock):
    """A remote backend to play trouble."""
    return FakeBackend("best", local=False, clock=clock, credential="account")


@pytest.fixture
def make_router(best, clock):
    """A maker of routers over that backend and a spare one, each with the list that its notices go to."""
    made = []

    def make(**options):
        told = []
        alerts = options.pop("alerts", None) or Alerts(on_alert=told.append)
        made.append(Router([best, FakeBackend("spare")], clock=clock, caching=False, alerts=alerts, **options))
        return made[-1], told

    yield make
    for router in made:
        router.close()


def ask(router, *, times=20):
    """Ask often: what is told must not depend on it."""
    for _ in range(times):
        router.describe(IMAGE)


@pytest.mark.parametrize(
    ("error", "kind", "severity", "scope"),
    [
        (QUOTA, "quota_ended", "error", "best"),
        (KEY, "authentication_failed", "error", "best"),
        (MODEL, "model_not_found", "error", "best/best-model"),
        (OUTAGE, "outage", "warning", "best/best-model/describe"),
    ],
)
def test_trouble_is_told_once_and_so_is_its_end(make_router, best, clock, error, kind, severity, scope):
    """However many calls meet it, and however many probes find it unchanged."""
    router, told = make_router()
    best.play(error, times=12)
    ask(router)
    (trouble,) = told
    assert (trouble.kind, trouble.severity, trouble.backend, trouble.scope) == (kind, severity, "best", scope)
    assert trouble.reason == error.code
    assert trouble.until > trouble.at == clock.time()
    for _ in range(20):
        clock.advance(2 * HOUR_S)
        ask(router)
    _, recovery = told
    assert (recovery.kind, recovery.severity, recovery.scope) == ("recovery", "info", scope)
    assert "answers again" in recovery.message
    best.play(error, times=12)
    ask(router)
    assert [notice.kind for notice in told] == [kind, "recovery", kind]


@pytest.mark.parametrize("error", [RateLimitedError("Too many.", retry_after_s=20), OverloadedError("Busy.")])
def test_what_passes_in_a_minute_is_nobodys_business(make_router, best, clock, error):
    """Neither when it comes nor when it goes."""
    router, told = make_router()
    best.play(error)
    ask(router)
    clock.advance(HOUR_S)
    ask(router)
    assert told == []


def test_a_reset_by_hand_ends_the_trouble_without_promising_anything(make_router, best):
    """Whoever tops up sees their incident closed; the next call decides."""
    router, told = make_router()
    best.play(QUOTA, times=2)
    ask(router)
    router.reset("best")
    assert told[-1].kind == "recovery"
    assert "was reset" in told[-1].message
    ask(router)
    assert [notice.kind for notice in told] == ["quota_ended", "recovery", "quota_ended"]


def test_two_processes_tell_it_once_between_them(make_router, best, clock, tmp_path):
    """Trouble is told by who meets it, and its end by who finds it, after a restart too."""
    everything = []
    for step in range(4):
        router, told = make_router(store=open_store(tmp_path / "state.sqlite"))
        if step == 0:
            best.play(QUOTA)
        ask(router)
        clock.advance(HOUR_S)
        everything.append([notice.kind for notice in told])
    assert everything == [["quota_ended"], ["recovery"], [], []]


def test_fifty_threads_tell_it_once(make_router, best):
    """All of them meet the trouble at the same moment."""
    router, told = make_router()
    best.play(QUOTA, times=50)
    meeting = threading.Barrier(50)

    def work():
        meeting.wait()
        router.describe(IMAGE)

    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [notice.kind for notice in told] == ["quota_ended"]


def test_a_budget_is_told_at_80_and_at_100_percent(clock):
    """The second time with what to do about it."""
    best = FakeBackend("best", local=False, clock=clock, usage=Usage(input_tokens=10, output_tokens=0, cost_usd=0.0))
    told = []
    limits = {"best": Limits(daily_budget_tokens=100)}
    with Router([best], clock=clock, caching=False, limits=limits, alerts=Alerts(on_alert=told.append)) as router:
        for _ in range(10):
            router.describe(IMAGE)
    assert [(notice.kind, notice.severity) for notice in told] == [
        ("budget_warning", "warning"),
        ("budget_spent", "error"),
    ]
    assert all(notice.reason == "daily_budget_tokens" for notice in told)
    assert told[0].remedy is None
    assert "Raise daily_budget_tokens" in told[1].text


def test_the_log_is_told_by_default(make_router, best, clock, caplog):
    """With the level that fits, and with fields for whoever collects logs."""
    caplog.set_level(logging.INFO, logger="vision_backends.alerts")
    router = Router([best, FakeBackend("spare")], clock=clock, caching=False)
    best.play(QUOTA)
    ask(router)
    clock.advance(HOUR_S)
    best.play(*[OUTAGE] * 5)
    ask(router)
    clock.advance(HOUR_S)
    ask(router)
    router.close()
    records = [record for record in caplog.records if record.name == "vision_backends.alerts"]
    assert [record.levelname for record in records] == ["ERROR", "WARNING", "INFO", "INFO"]
    assert records[0].vision_kind == "quota_ended"
    assert records[0].vision_backend == "best"
    assert "vision reset best" in records[0].getMessage()


def test_a_callback_in_trouble_hurts_nobody(make_router, best, caplog):
    """It is logged, and the call answers."""

    def fail(notice):
        raise RuntimeError("no pager")

    router, _ = make_router(alerts=Alerts(on_alert=fail))
    best.play(QUOTA)
    assert router.describe(IMAGE).trace.backend == "spare"
    assert "The callback failed on an alert of kind quota_ended" in caplog.text


def test_listeners_are_told_all_the_same(make_router, best):
    """Raw events are for programs, notices for people."""
    router, told = make_router()
    events = []
    router.subscribe(events.append)
    best.play(QUOTA)
    router.describe(IMAGE)
    assert [notice for event in events if (notice := notice_of(event))] == told


@pytest.fixture
def posted(monkeypatch):
    """A webhook on loopback: its address, and what it was sent."""
    bodies = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "*")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.005,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/services/{CANARY}", bodies
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_is_posted_what_a_person_and_a_program_need(make_router, best, posted):
    """And closing the router sends the last one."""
    url, bodies = posted
    router, _ = make_router(alerts=Alerts(webhook=Webhook(url)))
    best.play(QUOTA)
    ask(router)
    router.close()
    (message,) = map(json.loads, bodies)
    assert message["kind"] == "quota_ended"
    assert message["severity"] == "error"
    assert message["backend"] == "best"
    assert message["at"] > 1_700_000_000
    assert message["text"] == f"vision-backends: {message['message']} {message['remedy']}"


def test_what_a_server_says_cannot_call_a_whole_channel(make_router, best, posted):
    """Slack reads <!channel> as a mention."""
    url, bodies = posted
    router, _ = make_router(alerts=Alerts(webhook=Webhook(url)))
    best.play(QuotaExhaustedError("No money.", code="<!channel>"))
    ask(router)
    router.close()
    assert "&lt;!channel&gt;" in json.loads(bodies[0])["text"]


def test_the_webhook_can_be_configured(posted, tmp_path, monkeypatch):
    """As a key of the file or a variable; over the wire, without the key of the account."""
    url, bodies = posted
    key = "sk-canary-0123456789abcdef"
    with SandboxServer(api_key=key) as server:
        server.play("quota_gone")
        config = tmp_path / "vision.toml"
        lines = [f'[openai]\napi_key = "{key}"\nbase_url = "{server.url}"', f'[alerts]\nwebhook = "{url}"']
        config.write_text("\n".join(['ladder = ["openai", "embedded"]', 'state = "memory"', *lines]))
        with Router.from_config(config) as router:
            assert router.describe(IMAGE).trace.degraded
    (body,) = bodies
    assert json.loads(body)["kind"] == "quota_ended"
    assert key not in body
    monkeypatch.setenv("VISION_ALERTS__WEBHOOK", "https://hooks.example/variable")
    assert load_settings(config).alerts.webhook.get_secret_value() == "https://hooks.example/variable"


def test_the_address_of_the_webhook_is_a_secret(tmp_path):
    """It is shown by no setting, and a wrong one by no error."""
    config = tmp_path / "vision.toml"
    config.write_text(f'[alerts]\nwebhook = "https://hooks.example/{CANARY}"')
    settings = load_settings(config)
    assert CANARY not in repr(settings) + settings.model_dump_json()
    config.write_text(f'[alerts]\nwebhook = "htps://hooks.example/{CANARY}"')
    with pytest.raises(ConfigError, match=r"'alerts.webhook'.*not an http:// or https:// address") as caught:
        load_settings(config)
    assert CANARY not in str(caught.value)


def test_a_real_server_that_refuses_the_key_is_told_of(make_router):
    """The real SDK over a real socket; the notice names the provider's own code."""
    told = []
    with SandboxServer(only_key=True) as server:
        best = OpenAIBackend(api_key="wrong-key-0123456789", base_url=server.url)
        with Router([best, FakeBackend("spare")], caching=False, alerts=Alerts(on_alert=told.append)) as router:
            ask(router, times=3)
    (notice,) = told
    assert (notice.kind, notice.reason) == ("authentication_failed", "invalid_api_key")
    assert "wrong-key" not in repr(notice)


def test_a_notice_is_a_record():
    """It goes to JSON, and says everything in one line."""
    notice = Notice(at=1.0, kind="recovery", severity="info", backend="a", scope="a", reason="x", message="Back.")
    assert notice.text == "Back."
    assert json.loads(json.dumps(notice.to_dict()))["until"] is None
