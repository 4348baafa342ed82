"""Backends for ladders in configuration files; each is a rung with one peculiarity."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from vision_backends import (
    AuthenticationError,
    Description,
    Detections,
    NotReadyError,
    RateLimitedError,
    UnavailableError,
)
from vision_backends.testing import FakeBackend


class Absent(FakeBackend):
    """Never ready, and says how to mend it; it would send images away."""

    def __init__(self):
        missing = NotReadyError("Its weights are not here.", remedy="Run: fetch weights", backend="absent")
        super().__init__("absent", local=False, not_ready=missing)


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


class Locked(FakeBackend):
    """Has a wrong key."""

    def __init__(self):
        super().__init__("locked")
        self.play(AuthenticationError("The key is wrong."), times=1000)


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
