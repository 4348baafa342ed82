"""Backends for ladders in configuration files; each is a rung with one peculiarity."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from vision_backends import (
    AuthenticationError,
    Description,
    Detections,
    ImageLabel,
    NotReadyError,
    QuotaExhaustedError,
    RateLimitedError,
    TimedOutError,
    UnavailableError,
    Usage,
)
from vision_backends.routing import ladder
from vision_backends.testing import FakeBackend


class Absent(FakeBackend):
    """Never ready, and says how to mend it; it would send images away."""

    def __init__(self):
        missing = NotReadyError("Its weights are not here.", remedy="Run: fetch weights", backend="absent")
        super().__init__("absent", local=False, not_ready=missing)


class Uninstalled(FakeBackend):
    """Needs what a command brings."""

    def __init__(self):
        missing = NotReadyError("Packages are missing.", remedy="Run: install them", code="missing_packages")
        super().__init__("uninstalled", not_ready=missing)


class Limited(FakeBackend):
    """Rate limited for another twelve seconds."""

    def __init__(self):
        wait = RateLimitedError("Too many requests.", backend="limited", retry_after_s=12)
        super().__init__("limited", not_ready=wait)


class Dead(FakeBackend):
    """Fails whenever it is asked."""

    def __init__(self):
        super().__init__("dead")
        self.play(UnavailableError("The line is dead.", remedy="Plug it in."), times=1000)


class Away(FakeBackend):
    """A server that fails whenever it is asked, and may bill for it."""

    def __init__(self):
        super().__init__("away", local=False)
        self.play(TimedOutError("Nobody has answered."), times=1000)


class Locked(FakeBackend):
    """Has a wrong key."""

    def __init__(self):
        super().__init__("locked")
        self.play(AuthenticationError("The key is wrong."), times=1000)


class Broke(FakeBackend):
    """Has no quota left, and sends images away."""

    def __init__(self):
        super().__init__("broke", local=False, credential="purse")
        self.play(QuotaExhaustedError("No money is left.", code="insufficient_quota"), times=1000)


class Busy(FakeBackend):
    """Is rate limited once, for a little longer than an interactive call waits."""

    def __init__(self):
        super().__init__("busy", local=False)
        self.play(RateLimitedError("Too many requests.", retry_after_s=ladder.MAX_PAUSE_S + 0.1))


class Costly(FakeBackend):
    """Says what each answer has cost."""

    def __init__(self):
        usage = Usage(input_tokens=1200, output_tokens=30, cost_usd=0.25)
        super().__init__("costly", local=False, usage=usage)


class Talkative(FakeBackend):
    """Speaks in pieces, one of which would drive the terminal."""

    def __init__(self, *, breaks_off: bool = False):
        super().__init__("talkative")
        self.breaks_off = breaks_off

    def describe_stream(self, image, request, *, timeout_s):
        """Say three words, or break off after two."""
        yield "one "
        yield "two\x1b "
        if self.breaks_off:
            raise UnavailableError("The line is dead.")
        yield "three"
        return Description(text="one two\x1b three", trace=self._trace)


class Lines(FakeBackend):
    """Says two lines, the second cut at its limit."""

    def __init__(self):
        super().__init__("lines")

    def describe_stream(self, image, request, *, timeout_s):
        """End the last line too."""
        yield "first\nsecond\n"
        yield ""
        return Description(text="first\nsecond\n", complete=False, trace=self._trace)


class Hesitant(FakeBackend):
    """Says one word and then nothing for a minute."""

    def __init__(self):
        super().__init__("hesitant")

    def describe_stream(self, image, request, *, timeout_s):
        """Wait after the first word."""
        yield "Well, "
        time.sleep(60)
        return Description(text="Well, ", trace=self._trace)


class Hasty(FakeBackend):
    """Rate limited for a minute when it is asked."""

    def __init__(self):
        super().__init__("hasty", local=False)
        self.play(RateLimitedError("Too many requests.", retry_after_s=60), times=1000)


class Wordy(FakeBackend):
    """Says several lines, cut at its limit, with a character that would drive the terminal."""

    def __init__(self):
        super().__init__("wordy")
        self.play(Description(text="first line\nsecond \x1b[31mline", complete=False, language="en"), times=1000)


class Blind(FakeBackend):
    """Finds nothing anywhere."""

    def __init__(self):
        super().__init__("blind")

    def detect(self, images, request, *, timeout_s):
        """Return no objects."""
        return [Detections(items=(), width=image.width, height=image.height, trace=self._trace) for image in images]


class Vague(FakeBackend):
    """Knows of the whole image only what it was asked for."""

    def __init__(self):
        super().__init__("vague")

    def detect(self, images, request, *, timeout_s):
        """Return no objects, and each label."""
        known = tuple(ImageLabel(label=label, score=0.75) for label in request.labels)
        return [
            Detections(items=(), width=image.width, height=image.height, image_labels=known, trace=self._trace)
            for image in images
        ]


class Fussy(FakeBackend):
    """Cannot describe wide images."""

    def __init__(self):
        super().__init__("fussy")

    def describe(self, images, request, *, timeout_s):
        """Refuse what is wider than high."""
        if any(image.width > image.height for image in images):
            raise UnavailableError("Too wide for me.")
        return super().describe(images, request, timeout_s=timeout_s)

    def embed(self, images, request, *, timeout_s):
        """Refuse what is wider than high."""
        if any(image.width > image.height for image in images):
            raise UnavailableError("Too wide for me.")
        return super().embed(images, request, timeout_s=timeout_s)


class Other(FakeBackend):
    """Has a vector space of its own."""

    def __init__(self):
        super().__init__("other", space="other/vectors@1")


class Slow(FakeBackend):
    """Takes a tenth of a second for each image."""

    def __init__(self, *, each_s: float = 0.1):
        super().__init__("slow")
        self.play(each_s, times=1000)


class Stuck(FakeBackend):
    """Makes the file ``asked`` when it is asked, and does not answer for a minute."""

    def __init__(self):
        super().__init__("stuck")

    def describe(self, images, request, *, timeout_s):
        """Wait."""
        Path("asked").touch()
        time.sleep(60)
        return []


class Spanish(FakeBackend):
    """Answers with text that is not ASCII."""

    def __init__(self):
        super().__init__("spanish")

    def describe(self, images, request, *, timeout_s):
        """Say the same of everything."""
        answers = super().describe(images, request, timeout_s=timeout_s)
        return [replace(answer, text="Un niño") for answer in answers]


class Crashing(FakeBackend):
    """Has a bug."""

    def __init__(self):
        super().__init__("crashing")
        self.play(ZeroDivisionError("division by zero"), times=1000)


class StuckAtLast(FakeBackend):
    """Describes at once, but leaves a file and never answers about an image of nine pixels."""

    def __init__(self):
        super().__init__("stuck", concurrency=4)

    def describe(self, images, request, *, timeout_s):
        """Hang, where asked to."""
        if images[0].width == 9:
            Path("asked").touch()
            time.sleep(60)
        return super().describe(images, request, timeout_s=timeout_s)


class Throttled(FakeBackend):
    """Is rate limited for a moment, whenever it is asked, and writes that down."""

    def __init__(self):
        super().__init__("throttled", local=False, concurrency=4)

    def describe(self, images, request, *, timeout_s):
        """Ask for half a second."""
        with Path("asked").open("a", encoding="utf-8") as file:
            file.write("asked\n")
        raise RateLimitedError("Too many requests.", retry_after_s=0.6)


class Overwriting(FakeBackend):
    """Finds that its image has been replaced meanwhile."""

    def __init__(self):
        super().__init__("overwriting")

    def describe(self, images, request, *, timeout_s):
        """Write over the file."""
        Path("photo.png").write_bytes(Path("photo.png").read_bytes() + b"more")
        return super().describe(images, request, timeout_s=timeout_s)
