"""Tests of bulk work on many items in a few threads."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from app.services import bulk as bulk_module
from app.services.bulk import BulkOutcome, BulkReport, BulkResult, run_concurrently


def test_every_item_is_counted_once() -> None:
    report = BulkReport()
    assert (
        len(list(run_concurrently(lambda n: BulkResult(str(n), BulkOutcome.DONE), range(100), 3, report)))
        == 100
    )
    assert report.counts == {BulkOutcome.DONE: 100}


def test_only_a_few_items_are_read_ahead() -> None:
    numbers = count()
    steps = run_concurrently(lambda n: BulkResult(str(n), BulkOutcome.DONE), numbers, 2, BulkReport())
    next(steps)
    steps.close()
    assert next(numbers) <= 8


def test_closing_finishes_items_in_progress_and_starts_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, may_end, report, running = threading.Event(), threading.Event(), BulkReport(), []

    class Pool(ThreadPoolExecutor):
        """Lets items in progress finish when it is shut down."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            may_end.set()
            super().shutdown(wait=wait)

    def work(number: int) -> BulkResult:
        running.append(number)
        if number:
            started.set()
            assert may_end.wait(60)
        return BulkResult(str(number), BulkOutcome.DONE)

    monkeypatch.setattr(bulk_module, "ThreadPoolExecutor", Pool)
    steps = run_concurrently(work, range(100), 1, report)
    next(steps)
    assert started.wait(30)
    steps.close()
    assert running == [0, 1]
    assert report.counts == {BulkOutcome.DONE: 2}


def test_an_unexpected_exception_is_raised() -> None:
    def work(number: int) -> BulkResult:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(run_concurrently(work, range(3), 2, BulkReport()))
