"""Many items, a few at a time."""

import threading
import time
from itertools import count

import pytest

from app.transfer import Outcome, Result, Tally, run


def test_every_item_is_counted_once() -> None:
    tally = Tally()
    assert len(list(run(lambda n: Result(str(n), Outcome.DONE), range(100), 3, tally))) == 100
    assert tally.counts == {Outcome.DONE: 100}


def test_an_endless_list_is_not_read_ahead() -> None:
    numbers = count()
    steps = run(lambda n: Result(str(n), Outcome.DONE), numbers, 2, Tally())
    next(steps)
    steps.close()
    assert next(numbers) <= 8


def test_ended_early_it_finishes_what_is_under_way_and_begins_nothing() -> None:
    started, tally, running = threading.Event(), Tally(), []

    def work(number: int) -> Result:
        running.append(number)
        if number:
            started.set()
            time.sleep(0.2)
        return Result(str(number), Outcome.DONE)

    steps = run(work, range(100), 1, tally)
    next(steps)
    assert started.wait(10)
    steps.close()
    assert running == [0, 1]
    assert tally.counts == {Outcome.DONE: 2}


def test_a_mistake_of_ours_shows() -> None:
    def work(number: int) -> Result:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(run(work, range(3), 2, Tally()))
