"""The line of those who wait."""

import threading

from vision_backends.routing.wait_queue import Lines


def test_the_line_is_served_in_the_order_in_which_it_was_joined():
    """First come, first served."""
    lines, served, inside = Lines(), [], threading.Event()

    def wait(number):
        with lines.stand("gate", timeout_s=10) as is_next:
            served.append((number, is_next))

    with lines.stand("gate", timeout_s=10):
        threads = []
        for number in range(5):
            threads.append(threading.Thread(target=wait, args=(number,)))
            threads[-1].start()
            while len(lines._lines["gate"]) < number + 2:
                inside.wait(0.001)
        assert served == []
    for thread in threads:
        thread.join()
    assert served == [(number, True) for number in range(5)]
    assert lines.is_empty("gate")


def test_other_gates_have_lines_of_their_own():
    """Who waits for one server does not hold up those who wait for another."""
    lines = Lines()
    with lines.stand("one", timeout_s=10), lines.stand("other", timeout_s=0.01) as is_next:
        assert is_next


def test_patience_that_ends_in_line_gives_up_the_place():
    """Those behind move up."""
    lines, outcomes = Lines(), []

    def wait(timeout_s):
        with lines.stand("gate", timeout_s=timeout_s) as is_next:
            outcomes.append(is_next)

    with lines.stand("gate", timeout_s=10):
        hasty = threading.Thread(target=wait, args=(0.005,))
        hasty.start()
        hasty.join()
        patient = threading.Thread(target=wait, args=(10,))
        patient.start()
    patient.join()
    assert outcomes == [False, True]
