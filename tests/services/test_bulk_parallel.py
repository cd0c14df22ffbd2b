"""Many items, a few at a time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from app.services import bulk as parallel
from app.services.bulk import Outcome, Result, Tally, run


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


def test_ended_early_it_finishes_what_is_under_way_and_begins_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, may_end, tally, running = threading.Event(), threading.Event(), Tally(), []

    class Pool(ThreadPoolExecutor):
        """Lets the work under way end once it is told to shut down."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            may_end.set()
            super().shutdown(wait=wait)

    def work(number: int) -> Result:
        running.append(number)
        if number:
            started.set()
            assert may_end.wait(60)
        return Result(str(number), Outcome.DONE)

    monkeypatch.setattr(parallel, "ThreadPoolExecutor", Pool)
    steps = run(work, range(100), 1, tally)
    next(steps)
    assert started.wait(30)
    steps.close()
    assert running == [0, 1]
    assert tally.counts == {Outcome.DONE: 2}


def test_a_mistake_of_ours_shows() -> None:
    def work(number: int) -> Result:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(run(work, range(3), 2, Tally()))
