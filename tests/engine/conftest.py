"""The tests of the engine start without the loop that other tests of the process may have left running."""

import pytest

from vision_backends.engine.event_loop import engine_loop


@pytest.fixture(autouse=True)
def no_loop_of_others():
    """Stop the loop of the process; the next call starts another."""
    engine_loop().stop()
