"""Torch belongs to the application, which may be importing it just now."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import pytest
import transformers

from vision_backends.backends.local.runtime.torch_environment import ignored_warnings, quiet

PROGRAM = """
import sys, threading
from vision_backends.backends.local.runtime.torch_environment import free_device_memory

importing = threading.Thread(target=lambda: __import__("torch"))
importing.start()
calls = 0
while importing.is_alive():
    calls += "torch" in sys.modules
    free_device_memory()
    importing.join(0.005)
free_device_memory()
print("during the import" if calls else "too late")
"""


def test_memory_can_be_given_back_while_torch_is_imported():
    """As a program does that is closed right after its warm-up has begun."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=100)
    assert (done.stdout, done.stderr) == ("during the import\n", "")


class TestWarnings:
    """Filters belong to the application, also to its other threads."""

    def test_those_of_the_packages_are_ignored_and_others_are_not(self):
        """By the module that a warning is about."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with ignored_warnings("acme"):
                warnings.warn_explicit("of it", UserWarning, "layer.py", 1, module="acme.models")
                with pytest.raises(UserWarning, match="of another"):
                    warnings.warn_explicit("of another", UserWarning, "other.py", 1, module="acmenot")

    @pytest.mark.parametrize("first", ["application", "package"])
    def test_a_block_of_the_application_that_overlaps_leaves_nothing_behind(self, first):
        """Whichever of the two begins first, and ends first."""
        before = list(warnings.filters)
        theirs, ours = warnings.catch_warnings(), ignored_warnings("acme")
        blocks = [theirs, ours] if first == "application" else [ours, theirs]
        for block in blocks:
            block.__enter__()
        warnings.simplefilter("ignore", DeprecationWarning)
        for block in blocks:
            block.__exit__(None, None, None)
        assert list(warnings.filters) == before


class TestSwitchesOfTransformers:
    """They are as they were, or as the application has set them since."""

    @pytest.fixture
    def library(self):
        """Transformers' own logging, with a level and a hook."""
        library = transformers.utils.logging
        level, hook = library.get_verbosity(), library.set_tqdm_hook(lambda make, args, options: make(*args, **options))
        library.set_verbosity_info()
        yield library
        library.set_verbosity(level)
        library.set_tqdm_hook(hook)

    def test_they_are_back_afterwards(self, library):
        """Whatever they were."""
        with quiet():
            assert library.get_verbosity() == logging.CRITICAL
        assert library.get_verbosity() == logging.INFO

    def test_what_the_application_sets_meanwhile_stays(self, library):
        """Another thread may start up just then."""

        def theirs(make, args, options):
            return make(*args, **options)

        with quiet():
            library.set_verbosity_debug()
            library.set_tqdm_hook(theirs)
        assert library.get_verbosity() == logging.DEBUG
        assert library.set_tqdm_hook(None) is theirs
