"""A vision.toml that was found: what it may set, what it may not, and how it comes to be trusted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from vision_backends import ConfigError, Router
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.config.found import OnlyIf
from vision_backends.config.loading import load_settings, read_configuration
from vision_backends.config.settings import Settings
from vision_backends.config.trusted_files import TrustedFiles
from vision_backends.config.validation import declared

HARMLESS = [
    'ladder = ["embedded"]',
    '[ladder]\ndescribe = ["local", "embedded"]',
    "deadline_s = 10",
    "local_only = true",
    "warm_standby = false",
    "cache.enabled = false",
    "images.max_pixels = 1000",
    "images.allow_urls = false",
    "images.max_bytes = 1000",
    'openai.model = "gpt-6-sol"',
    'openai.embedding_model = "text-embedding-3-large"',
    "openai.timeout_s = 5",
    "openai.concurrency = 1",
    "openai.max_tokens = 100",
    "openai.max_image_px = 512",
    'openai.detail = "low"',
    'openai.reasoning_effort = "none"',
    "openai.daily_budget_usd = 0.5",
    "openai.requests_per_minute = 5",
    "local.max_concurrency = 1",
    'local.download = "never"',
    "local.min_score = 0.4",
    "embedded.min_score = 0.4",
    "[openai]\n[backends]\n[alerts]",
]

HARMFUL = [
    ('ladder = ["package.module:Class"]', "ladder"),
    ('ladder.describe = ["package.module:Class"]', "ladder"),
    ('ladder = ["a_plugin"]', "ladder"),
    ("deadline_s = 61", "deadline_s"),
    ("hedge_after_s = 1", "hedge_after_s"),
    ('state = "/tmp/x.sqlite"', "state"),
    ('state = "memory"', "state"),
    ("cache.max_bytes = 1", "cache.max_bytes"),
    ("images.max_pixels = 40_000_001", "images.max_pixels"),
    ("images.allow_urls = true", "images.allow_urls"),
    ("images.allow_private_urls = true", "images.allow_private_urls"),
    ("logs.enabled = true", "logs.enabled"),
    ("logs.max_bytes = 1", "logs.max_bytes"),
    ('alerts.webhook = "https://x.test/hook"', "alerts.webhook"),
    ('openai.account = "work"', "openai.account"),
    ("accounts.work.daily_budget_usd = 1", "accounts.work.daily_budget_usd"),
    ('backends."a:B".colour = "red"', "backends.a:B.colour"),
    ('backends.second.kind = "openai"', "backends.second.kind"),
    ('backends.second = {kind = "openai", model = "gpt-4o"}', "backends.second.model"),
    ('backends.openai.base_url = "https://x.test/v1"', "openai.base_url"),
    ('openai.api_key_env = "AWS_SECRET_ACCESS_KEY"', "openai.api_key_env"),
    ('ladder = ["second"]', "ladder"),
    ('openai.base_url = "https://api.openai.com/v1"', "openai.base_url"),
    ('openai.api_key = "sk-x"', "openai.api_key"),
    ('openai.organization = "org-x"', "openai.organization"),
    ('openai.project = "p"', "openai.project"),
    ('openai.headers = {x-api-key = "y"}', "openai.headers"),
    ("openai.prices = {gpt-6-luna = {input = 0, output = 0}}", "openai.prices"),
    ("openai.price = 0", "openai.price"),
    ("openai.allow_unpriced = true", "openai.allow_unpriced"),
    ('openai.error_codes = {gone = "quota_exhausted"}', "openai.error_codes"),
    ('openai.api = "chat"', "openai.api"),
    ('openai.image_embeddings = "direct"', "openai.image_embeddings"),
    ('openai.model = "ft:gpt-4o:me::x"', "openai.model"),
    ('openai.model = "openrouter/gpt-4o"', "openai.model"),
    ('openai.model = "llama3"', "openai.model"),
    ('openai.embedding_model = "mine"', "openai.embedding_model"),
    ("openai.timeout_s = 21", "openai.timeout_s"),
    ("openai.timeout_s = nan", "openai.timeout_s"),
    ("openai.concurrency = 65", "openai.concurrency"),
    ("openai.max_tokens = 1_000_000", "openai.max_tokens"),
    ('openai.detail = "auto"', "openai.detail"),
    ('openai.reasoning_effort = "high"', "openai.reasoning_effort"),
    ('local.caption_model = "them/theirs"', "local.caption_model"),
    ('local.embedding_model = "./weights"', "local.embedding_model"),
    ('local.device = "cuda"', "local.device"),
    ("local.max_memory_bytes = 1", "local.max_memory_bytes"),
    ('local.download = "wait"', "local.download"),
    ('embedded.models = "."', "embedded.models"),
    ('embedded.ocr = "rapidocr"', "embedded.ocr"),
    ("embedded.threads = 64", "embedded.threads"),
]


@pytest.fixture
def find(fresh_user):
    """A writer of a file that is found in the working directory."""

    def find(text: str) -> Path:
        path = fresh_user / "vision.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return find


@pytest.fixture
def write_own(fresh_user):
    """A writer of the user's own file."""

    def write(text: str) -> Path:
        path = fresh_user / ".config" / "vision-backends" / "vision.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path=None) -> ConfigError:
    """Return the error that reading the configuration ends with."""
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    return caught.value


@pytest.mark.parametrize("text", HARMLESS)
def test_what_does_no_harm_may_be_set(text, find):
    """Ladders of built-in rungs, OpenAI's models, the style of answers, less time, less money, less sent."""
    find(text)
    load_settings()


@pytest.mark.parametrize(("text", "key"), HARMFUL)
def test_everything_else_is_an_error_that_says_how_to_allow_it(text, key, find):
    """It is not ignored: a picture that was meant for a private server would go to another one."""
    path = find(text)
    error = refusal()
    assert repr(key) in error.message
    assert error.remedy == "Read it; then run: vision trust vision.toml"
    load_settings(path)


def test_a_setting_that_declares_nothing_is_refused(find):
    """So that one which is added later is not forgotten."""
    find('[openai]\nproject = "p"')
    assert not any(isinstance(each, OnlyIf) for each in declared(OpenAIBackend, ["project"])["project"].metadata)
    assert "openai.project" in refusal().message
    declaring = {
        key for key, field in Settings.model_fields.items() if any(isinstance(m, OnlyIf) for m in field.metadata)
    }
    assert declaring == {"ladder", "deadline_s", "local_only", "warm_standby"}


def test_limits_are_compared_with_what_the_user_has_set(find, write_own):
    """Lower than the user's own, not than the default."""
    write_own("deadline_s = 30\nlocal_only = true\n[openai]\ntimeout_s = 5\ndaily_budget_usd = 1.0\n")
    find("deadline_s = 20\n[openai]\ntimeout_s = 4\ndaily_budget_usd = 0.5\n")
    assert load_settings().deadline_s == 20
    for text in ("deadline_s = 40", "openai.timeout_s = 6", "openai.daily_budget_usd = 2", "local_only = false"):
        find(text)
        assert repr(text.partition(" ")[0]) in refusal().message


def test_a_variable_that_would_win_does_not_hide_the_file(find, monkeypatch):
    """Without the variable, the same folder would do something else."""
    monkeypatch.setenv("VISION_OPENAI__BASE_URL", "https://mine.test/v1")
    find('openai.base_url = "https://theirs.test/v1"')
    assert "openai.base_url" in refusal().message


def test_only_so_much_of_a_strangers_file_is_repeated(find):
    """Neither long keys nor many, and nothing that drives a terminal."""
    keys = "\n".join(f'"{number}{"k" * 5000}".x = 1' for number in range(5))
    find(f'[backends]\n"\\u202e\\u001b[2J".x = 1\n{keys}\n' + "\n".join(f"b{number}.x = 1" for number in range(50)))
    message = str(refusal())
    assert len(message) < 1_000
    assert message.isprintable()
    assert "48 more" in message


def test_nothing_is_opened_before_the_error(find, tmp_path):
    """No state, no module, no webhook."""
    find(f'ladder = ["planted:Backend"]\nstate = "{tmp_path}/new/state.sqlite"\n')
    Path("planted.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    sys.path.insert(0, "")
    try:
        with pytest.raises(ConfigError, match="vision trust"):
            Router.from_config()
    finally:
        sys.path.remove("")
    assert "planted" not in sys.modules
    assert not (tmp_path / "new").exists()


def test_a_router_obeys_a_found_file_and_a_named_one(find):
    """The same rules for programs."""
    path = find('ladder = ["embedded"]\nstate = "memory"\n')
    with pytest.raises(ConfigError, match="'state'"):
        Router.from_config()
    with Router.from_config(path) as router:
        assert [rung.backend for rung in router.status()] == ["embedded"]


class TestTrust:
    """A path and the hash of a content."""

    TEXT = 'state = "memory"\n[openai]\nbase_url = "https://x.test/v1"\n'

    def trust(self, path: Path) -> None:
        """Trust what a file says now."""
        TrustedFiles().add(path, read_configuration(path).places[0].sha256)

    def test_a_trusted_file_sets_everything_until_it_changes(self, find):
        """A byte is enough."""
        path = find(self.TEXT)
        self.trust(path)
        assert load_settings().state == "memory"
        assert read_configuration().found == "trusted"
        find(self.TEXT + "\n")
        assert "it was trusted, but has changed since" in refusal().message
        find(self.TEXT)
        assert load_settings().state == "memory"

    def test_trust_belongs_to_the_place(self, find, tmp_path, monkeypatch):
        """The same file elsewhere refers to other things; so does a link to it."""
        path = find(self.TEXT)
        self.trust(path)
        monkeypatch.chdir(tmp_path)
        Path("vision.toml").write_bytes(path.read_bytes())
        assert "was only found" in refusal().message
        Path("vision.toml").unlink()
        Path("vision.toml").symlink_to(path)
        assert "was only found" in refusal().message

    def test_a_folder_that_is_reached_over_a_link_is_the_same_place(self, find, fresh_user, tmp_path, monkeypatch):
        """Homes often are links."""
        self.trust(find(self.TEXT))
        (tmp_path / "link").symlink_to(fresh_user)
        monkeypatch.chdir(tmp_path / "link")
        assert load_settings().state == "memory"

    def test_trust_ends_when_it_is_revoked(self, find):
        """Until it is given again."""
        path = find(self.TEXT)
        files = TrustedFiles()
        self.trust(path)
        assert [each.path for each in files.all()] == [path]
        assert files.remove(path)
        assert not files.remove(path)
        assert files.all() == []
        assert "was only found" in refusal().message

    @pytest.mark.parametrize(
        "note", ["", "[]", "{", '{"path": 5}', '{"path": "/x", "sha256": "y"}', "[" * 9999, "\x00"]
    )
    def test_a_damaged_note_trusts_nothing(self, note, find, fresh_user):
        """And stops nothing."""
        self.trust(find(self.TEXT))
        (kept,) = (fresh_user / ".local/share/vision-backends/trusted").glob("*.json")
        kept.write_text(note, encoding="utf-8")
        assert "was only found" in refusal().message
        assert TrustedFiles().all() == []

    def test_notes_are_the_users_own(self, find, fresh_user):
        """Others could give trust otherwise."""
        self.trust(find(self.TEXT))
        folder = fresh_user / ".local/share/vision-backends/trusted"
        assert folder.stat().st_mode & 0o077 == 0
        folder.chmod(0o777)
        assert "others can write to" in refusal().message

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user whom nobody knows")
    def test_without_a_home_nothing_of_the_working_directory_counts_as_the_users(self, tmp_path):
        """A folder called ``~`` could bring settings, trust and answers along."""
        planted = tmp_path / "~" / ".config" / "vision-backends" / "vision.toml"
        planted.parent.mkdir(parents=True)
        planted.write_text("deadline_s = 5", encoding="utf-8")
        for path in (tmp_path, *tmp_path.rglob("*")):
            os.chown(path, 12_345, 12_345)
        program = (
            "import os, sys\n"
            "from vision_backends.config.loading import load_settings\n"
            "load_settings()\n"
            "os.chdir(sys.argv[1])\n"
            "os.setuid(12345)\n"
            "for name in ('HOME', 'XDG_CACHE_HOME'): del os.environ[name]\n"
            "assert os.path.exists(os.path.expanduser('~/.config/vision-backends/vision.toml'))\n"
            "print(load_settings().deadline_s, load_settings().state_file)\n"
        )
        run = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
        assert run.stdout == "60.0 None\n", run.stderr

    def test_a_relative_folder_is_none_of_the_users(self, monkeypatch):
        """Older versions of platformdirs name one."""
        monkeypatch.setattr(platformdirs, "user_data_path", Path)
        with pytest.raises(ConfigError, match="no home"):
            TrustedFiles().add(Path("vision.toml"), "0" * 64)


class TestOrder:
    """Later wins, key by key."""

    def test_the_users_file_is_below_the_found_one_and_that_below_variables(self, find, write_own, monkeypatch):
        """Each sets what the next leaves alone."""
        write_own('deadline_s = 30\nstate = "memory"\n[openai]\ntimeout_s = 9\nmodel = "gpt-6-sol"\n')
        find('deadline_s = 20\n[openai]\nmodel = "gpt-6-luna"\n')
        monkeypatch.setenv("OPENAI_BASE_URL", "https://sdk.test/v1")
        settings = load_settings()
        assert (settings.deadline_s, settings.state) == (20, "memory")
        assert settings.table("openai") == {
            "timeout_s": 9,
            "model": "gpt-6-luna",
            "base_url": "https://sdk.test/v1",
        }
        monkeypatch.setenv("VISION_OPENAI__BASE_URL", "https://ours.test/v1")
        monkeypatch.setenv("VISION_DEADLINE_S", "3")
        settings = load_settings()
        assert (settings.deadline_s, settings.openai["base_url"]) == (3, "https://ours.test/v1")

    def test_openais_variable_wins_over_a_named_file(self, tmp_path, monkeypatch):
        """Whoever sets a variable for one run means that run."""
        path = tmp_path / "named.toml"
        path.write_text('openai.base_url = "https://file.test/v1"', encoding="utf-8")
        monkeypatch.setenv("OPENAI_BASE_URL", "https://sdk.test/v1")
        assert load_settings(path).openai["base_url"] == "https://sdk.test/v1"

    def test_settings_made_by_a_program_are_what_it_says(self, monkeypatch):
        """Arguments come last."""
        monkeypatch.setenv("VISION_DEADLINE_S", "3")
        assert Settings(deadline_s=5).deadline_s == 5
        assert Settings().deadline_s == 60

    def test_in_the_users_own_folder_the_users_file_is_not_a_found_one(self, write_own, monkeypatch):
        """It is trusted there as everywhere."""
        path = write_own('state = "memory"')
        monkeypatch.chdir(path.parent)
        assert load_settings().state == "memory"
        assert len([place for place in read_configuration().places if place.path]) == 1

    def test_a_bad_value_names_the_users_file(self, write_own, find):
        """Not the one that was found."""
        path = write_own("deadline_s = 0")
        find('ladder = ["embedded"]')
        assert refusal().message.startswith(f"{path} has a bad value for 'deadline_s'")
