"""``vision describe``: what is printed where, and with which exit code."""

from __future__ import annotations

import json
import os
import re

import pytest
from PIL import Image

FAKE = "vision_backends.testing.fake:FakeBackend"


def test_one_image_is_answered_with_the_text_alone(vision, make_photo):
    """Nothing but the answer is on standard output, and nothing at all on standard error."""
    result = vision("describe", make_photo())
    assert (result.exit_code, result.stdout, result.stderr) == (0, "fake says: 64×48 px\n", "")


def test_many_images_are_answered_with_their_names_in_the_order_given(vision, make_photo):
    """One line per image, whatever the order of the alphabet."""
    names = [make_photo("b.png"), make_photo("a.png", size=(10, 20))]
    result = vision("describe", *names)
    assert result.stdout == "b.png: fake says: 64×48 px\na.png: fake says: 10×20 px\n"


def test_options_reach_the_backend(vision, make_photo):
    """The prompt is asked; the rest has a meaning for the router too."""
    result = vision("describe", make_photo(), "-p", "What is it?", "--language", "de", "--max-words", "5")
    assert result.stdout == "fake says to 'What is it?': 64×48 px\n"


def test_json_is_one_object_per_line_with_source_and_trace(vision, make_photo):
    """The exact name and the whole account are there for programs."""
    result = vision("describe", make_photo("a.png"), make_photo("b.png"), "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["source"] for line in lines] == ["a.png", "b.png"]
    assert lines[0]["text"] == "fake says: 64×48 px"
    assert lines[0]["trace"]["backend"] == "fake"


def test_a_bad_image_among_many_fails_alone(vision, make_photo, fresh_user):
    """The others are answered; the exit code says so; the error names the file once."""
    (fresh_user / "bad.png").write_bytes(b"no image")
    result = vision("describe", make_photo("a.png"), "bad.png", make_photo("b.png"))
    assert result.exit_code == 4
    assert result.stdout == "a.png: fake says: 64×48 px\nb.png: fake says: 64×48 px\n"
    assert result.stderr.startswith("vision: ")
    assert result.stderr.count("bad.png") == 1
    assert "Traceback" not in result.stderr


def test_a_bad_image_is_an_error_object_in_json(vision, fresh_user):
    """Programs get kind, message and remedy in place of the answer."""
    (fresh_user / "bad.png").write_bytes(b"no image")
    result = vision("describe", "bad.png", "--json")
    line = json.loads(result.stdout)
    assert result.exit_code == 2
    assert line["source"] == "bad.png"
    assert line["error"]["kind"] == "invalid_image"
    assert line["error"]["message"]
    assert set(line["error"]) == {"kind", "message", "remedy"}


def test_a_degraded_answer_says_why_in_one_line(vision, make_photo, use_ladder):
    """The answer stays clean; the reason names the rung that was missed."""
    use_ladder("rungs:Absent", FAKE)
    result = vision("describe", make_photo())
    assert result.exit_code == 0
    assert result.stdout == "fake says: 64×48 px\n"
    assert result.stderr.startswith("vision: fake answered, because absent: Its weights are not here")
    assert result.stderr.count("\n") == 1


def test_the_reason_names_the_command_that_installs_what_is_missing(vision, make_photo, use_ladder):
    """As after a plain installation; with a key that is missing there is no command to run."""
    use_ladder("rungs:Uninstalled", FAKE)
    result = vision("describe", make_photo())
    said = "vision: fake answered, because uninstalled: Packages are missing. Run: install them\n"
    assert (result.exit_code, result.stderr) == (0, said)


def test_a_damaged_file_is_told_without_what_else_could_be_passed(vision, make_photo, fresh_user):
    """A list of formats is for files of others, and one of Python's types for programs."""
    whole = (fresh_user / make_photo("whole.png", size=(400, 300))).read_bytes()
    (fresh_user / "cut.png").write_bytes(whole[: len(whole) // 2])
    (fresh_user / "notes.jpg").write_bytes(b"no image")
    result = vision("describe", "cut.png", "notes.jpg")
    cut, notes = result.stderr.splitlines()
    assert cut.endswith(" is missing. Fetch or save it again.")
    assert notes.endswith("AVIF images (HEIC with the pillow-heif plugin).")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read whatever the mode says")
def test_a_file_without_permission_says_what_is_needed(vision, make_photo, fresh_user):
    """It is there, so its path is right."""
    (fresh_user / make_photo()).chmod(0)
    result = vision("describe", "photo.png")
    assert result.exit_code == 2
    assert "Permission denied. Give yourself the permission to read it" in result.stderr


def test_one_reason_for_many_images_is_told_once_with_a_count(vision, make_photo, use_ladder):
    """A hundred files do not repeat one reason a hundred times."""
    use_ladder("rungs:Absent", FAKE)
    result = vision("describe", *(make_photo(f"{number}.png") for number in range(3)))
    assert result.stderr.startswith("vision: 3 of 3: fake answered, because absent: ")
    assert result.stderr.count("\n") == 1


def test_different_reasons_are_told_apart(vision, make_photo, use_ladder):
    """The second image failed at another rung than the first."""
    use_ladder("rungs:Fussy", FAKE, more="cache.enabled = false\n")
    result = vision("describe", make_photo("high.png", size=(10, 40)), make_photo("wide.png", size=(40, 10)))
    assert result.stdout == "high.png: fussy says: 10×40 px\nwide.png: fake says: 40×10 px\n"
    assert result.stderr == "vision: 1 of 2: fake answered, because fussy: Too wide for me\n"


def test_when_nothing_can_answer_a_table_says_why_and_what_to_do(vision, make_photo, use_ladder):
    """Exit code 3, each rung with its reason and remedy, no traceback."""
    use_ladder("rungs:Absent", "rungs:Dead")
    result = vision("describe", make_photo())
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.splitlines()[0] == "vision: No backend could answer describe."
    assert "  absent  not_ready: Its weights are not here." in result.stderr
    assert "          → Run: fetch weights" in result.stderr
    assert "  dead    unavailable: The line is dead." in result.stderr


def test_when_nothing_can_answer_for_many_the_table_is_shown_once(vision, make_photo, use_ladder):
    """Every file is named; the table is not repeated."""
    use_ladder("rungs:Absent")
    result = vision("describe", make_photo("a.png"), make_photo("b.png"))
    assert result.exit_code == 3
    assert "vision: a.png: No backend could answer describe." in result.stderr
    assert "vision: b.png: No backend could answer describe." in result.stderr
    assert result.stderr.count("Its weights are not here.") == 1


def test_the_attempts_of_a_failure_are_in_its_json(vision, make_photo, use_ladder):
    """Programs see what was tried."""
    use_ladder("rungs:Absent")
    result = vision("describe", make_photo(), "--json")
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "all_backends_failed"
    assert [attempt["backend"] for attempt in error["attempts"]] == ["absent"]


def test_nothing_could_answer_outweighs_a_bad_image(vision, make_photo, use_ladder):
    """The exit code of many is the worst of them."""
    use_ladder("rungs:Absent")
    assert vision("describe", "missing.png", make_photo()).exit_code == 3


def test_a_loud_error_is_told_once_and_without_a_traceback(vision, make_photo, use_ladder):
    """A wrong key is in the line that says what degraded, not also in a log."""
    use_ladder("rungs:Locked", FAKE)
    result = vision("describe", make_photo())
    assert result.stderr == "vision: fake answered, because locked: The key is wrong\n"


def test_a_text_of_several_lines_is_kept_for_one_image_and_joined_for_many(vision, make_photo, use_ladder):
    """Many answers are a line each; nothing that drives a terminal gets through; a cut text is told."""
    use_ladder("rungs:Wordy", more="cache.enabled = false\n")
    one = vision("describe", make_photo("a.png"))
    assert one.stdout == "first line\nsecond \\x1b[31mline\n"
    assert one.stderr == "vision: the text was cut off at the model's length limit\n"
    many = vision("describe", make_photo("a.png"), make_photo("b.png"))
    assert many.stdout.splitlines()[0] == "a.png: first line second \\x1b[31mline"
    assert many.stderr == "vision: 2 of 2: the text was cut off at the model's length limit\n"


def test_the_backend_can_be_chosen(vision, make_photo, use_ladder):
    """Asking one rung leaves the better one out and is no degradation."""
    use_ladder("rungs:Dead", FAKE)
    result = vision("describe", make_photo(), "--backend", "fake")
    assert (result.stdout, result.stderr) == ("fake says: 64×48 px\n", "")


@pytest.mark.parametrize("names", [["--backends", "fake, dead"], ["--backend", "fake", "--backends", "dead"]])
def test_several_backends_are_asked_in_that_order(vision, make_photo, use_ladder, names):
    """Separated by commas, or one option each."""
    use_ladder("rungs:Dead", FAKE)
    result = vision("describe", make_photo(), *names)
    assert (result.stdout, result.stderr) == ("fake says: 64×48 px\n", "")


@pytest.mark.parametrize("more", [(), ("--stream",)])
def test_a_model_can_be_chosen(vision, make_photo, use_ladder, more):
    """Only the rung that has it is asked, also for a stream; a name that nobody has is a usage error."""
    use_ladder("rungs:Dead", FAKE)
    result = vision("describe", make_photo(), "--model", "fake/fake-model", *more)
    assert (result.stdout, result.stderr) == ("fake says: 64×48 px\n", "")
    result = vision("describe", make_photo(), "--model", "gpt-x", *more)
    assert result.exit_code == 2
    assert "They have: dead-model (dead), fake-model (fake)." in result.stderr


def test_an_unknown_backend_is_a_usage_error(vision, make_photo):
    """The ladder is named."""
    result = vision("describe", make_photo(), "--backend", "fkae")
    assert result.exit_code == 2
    assert result.stderr == (
        "vision: There is no backend 'fkae' on the ladder for describe. Did you mean 'fake'? The ladder has: fake.\n"
    )


def test_local_only_asks_nobody_who_sends_images_away(vision, make_photo, use_ladder):
    """A remote rung alone cannot answer then."""
    use_ladder("rungs:Absent")
    result = vision("describe", make_photo(), "--local-only")
    assert result.exit_code == 2
    assert "local_only" in result.stderr


@pytest.mark.parametrize("deadline", ["0", "-1"])
def test_a_deadline_that_leaves_no_time_is_a_usage_error(vision, make_photo, deadline):
    """The value is named."""
    result = vision("describe", make_photo(), "--deadline", deadline)
    assert result.exit_code == 2
    assert "deadline_s=" in result.stderr


def test_the_deadline_holds_for_a_list_that_is_asked_about_in_pieces(vision, make_photo, use_ladder):
    """What comes after it is not asked about any more, but told."""
    use_ladder("rungs:Slow", more='[backends."rungs:Slow"]\neach_s = 0.05\n')
    names = [make_photo(f"{number}.png", size=(64, 48 + number)) for number in range(70)]
    result = vision("describe", *names, "--deadline", "0.3")
    answered = result.stdout.count("slow says")
    assert result.exit_code == 4
    assert answered < 70
    assert len(re.findall(r"^vision: \d+\.png: ", result.stderr, re.MULTILINE)) == 70 - answered


def test_another_configuration_can_be_named(vision, make_photo, fresh_user, use_ladder):
    """--config wins over vision.toml in the working directory."""
    other = use_ladder("rungs:Spanish").rename(fresh_user / "other.toml")
    use_ladder(FAKE)
    assert vision("describe", make_photo(), "--config", str(other)).stdout == "Un niño\n"


def test_a_bad_configuration_is_told_with_its_remedy(vision, make_photo, fresh_user):
    """Exit code 2, for the file is at fault."""
    (fresh_user / "vision.toml").write_text("ladde = []\n", encoding="utf-8")
    result = vision("describe", make_photo())
    assert result.exit_code == 2
    assert "ladde" in result.stderr
    assert "Did you mean 'ladder'?" in result.stderr


def test_debug_shows_the_traceback_of_an_error(vision, make_photo):
    """The message and the exit code stay the same."""
    result = vision("describe", make_photo(), "--backend", "nobody", "--debug")
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert "vision: There is no backend 'nobody'" in result.stderr


def test_without_paths_there_is_nothing_to_describe(vision):
    """Exit code 2, as for every usage error."""
    result = vision("describe")
    assert result.exit_code == 2
    assert "No image is named. Name images" in result.stderr


def test_a_state_that_cannot_be_kept_is_told(vision, make_photo, fresh_user):
    """No answer says so, hence the warning is not hidden with the log."""
    (fresh_user / "file").write_text("in the way", encoding="utf-8")
    config = fresh_user / "vision.toml"
    config.write_text(config.read_text(encoding="utf-8").replace('"memory"', '"file/state.sqlite"'), encoding="utf-8")
    result = vision("describe", make_photo())
    assert (result.exit_code, result.stdout) == (0, "fake says: 64×48 px\n")
    assert result.stderr.startswith("vision: ")
    assert "memory" in result.stderr


def test_what_is_wrong_with_an_image_that_was_answered_is_told(vision, fresh_user):
    """On standard error; its name stands before it only where several were asked about."""
    Image.new("RGBA", (8, 8)).save(fresh_user / "empty.png")
    Image.new("RGB", (8, 8)).save(fresh_user / "full.png")
    alone, together = vision("describe", "empty.png"), vision("describe", "full.png", "empty.png")
    assert alone.exit_code == together.exit_code == 0
    assert alone.stderr.startswith("vision: empty.png is wholly transparent")
    assert alone.stderr.count("\n") == together.stderr.count("\n") == 1
    assert together.stderr == alone.stderr
