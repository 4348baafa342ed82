"""Work on many pieces at once."""

import threading

import pytest

from vision_backends.routing.concurrency import spread


@pytest.mark.parametrize("threads", [1, 3, 50])
def test_every_piece_is_done_once(threads):
    """However many threads there are."""
    done = []
    spread(done.append, range(20), threads=threads)
    assert sorted(done) == list(range(20))


def test_as_many_run_at_once_as_are_allowed():
    """Four that wait for each other can only end together."""
    meeting = threading.Barrier(4, timeout=10)
    spread(lambda _piece: meeting.wait(), range(8), threads=4)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_error_is_raised_and_the_rest_is_left_out(threads):
    """As in a loop."""
    begun = []

    def work(piece):
        begun.append(piece)
        if piece == 1:
            raise KeyError(piece)

    with pytest.raises(KeyError):
        spread(work, range(1000), threads=threads)
    assert len(begun) < 1000
