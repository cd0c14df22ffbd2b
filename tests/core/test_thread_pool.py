"""The thread pool that does not count blocked threads, and tasks in the background."""

import threading
from concurrent.futures import wait

import pytest

from app.core.threads import BackgroundTasks, ElasticThreadPool, blocking
from tests.waiting import wait_until

SOON = 30


def test_futures_return_results_and_raise_errors() -> None:
    pool = ElasticThreadPool(2)
    assert pool.submit(pow, 2, 5).result(SOON) == 32
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result(SOON)
    pool.shutdown()


def test_no_more_threads_than_its_size_work_at_once() -> None:
    pool, most, now, lock = ElasticThreadPool(3), 0, 0, threading.Lock()
    three = threading.Barrier(3, timeout=SOON)

    def work() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        with blocking():
            threading.Event().wait(0.002)
        with lock:
            now -= 1

    def plain() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.002)
        with lock:
            now -= 1

    def together() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        three.wait()
        threading.Event().wait(0.002)
        with lock:
            now -= 1

    wait([pool.submit(together) for _ in range(30)])
    assert not three.broken, "fewer than three worked"
    assert most == 3
    wait([pool.submit(work) for _ in range(30)])
    most = 0
    wait([pool.submit(plain) for _ in range(60)])
    pool.shutdown()
    assert most <= 4  # a thread that came back may not have ended yet


def test_blocked_threads_are_replaced() -> None:
    pool, go_on = ElasticThreadPool(2), threading.Event()

    def stall() -> None:
        with blocking():
            assert go_on.wait(SOON)

    stalled = [pool.submit(stall) for _ in range(20)]
    assert pool.submit(int, "7").result(SOON) == 7
    assert not any(future.done() for future in stalled)
    go_on.set()
    wait(stalled, SOON)
    pool.shutdown()


def test_surplus_threads_end_after_their_task() -> None:
    others = set(threading.enumerate())
    pool, go_on = ElasticThreadPool(1), threading.Event()

    def stall() -> None:
        with blocking():
            assert go_on.wait(SOON)

    stalled = [pool.submit(stall) for _ in range(10)]
    assert pool.submit(int, "7").result(SOON) == 7
    assert len(set(threading.enumerate()) - others) == 11
    go_on.set()
    wait(stalled, SOON)
    assert pool.submit(int, "7").result(SOON) == 7
    wait_until(lambda: len(set(threading.enumerate()) - others) <= 1)
    pool.shutdown()


def test_a_thread_is_started_only_when_a_task_waits_and_none_is_idle() -> None:
    others = set(threading.enumerate())
    pool = ElasticThreadPool(4)

    def pause() -> None:
        with blocking():
            threading.Event().wait(0.001)

    for _ in range(50):
        pool.submit(pause).result(SOON)
    wait_until(lambda: pool._idle == 1)
    assert len(set(threading.enumerate()) - others) == 1
    pool.shutdown()


def test_nested_blocking_counts_once() -> None:
    pool, go_on = ElasticThreadPool(1), threading.Event()

    def stall() -> None:
        with blocking(), blocking():
            assert go_on.wait(SOON)

    stalled = [pool.submit(stall) for _ in range(3)]
    assert pool.submit(int, "7").result(SOON) == 7
    assert pool._working <= 1
    go_on.set()
    wait(stalled, SOON)
    wait_until(lambda: pool._working == 1)
    assert pool.submit(int, "7").result(SOON) == 7
    pool.shutdown()


def test_if_no_thread_can_be_started_tasks_wait_for_the_existing_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool, go_on, blocked = ElasticThreadPool(1), threading.Event(), threading.Event()

    def stall() -> None:
        blocked.set()
        with blocking():
            assert go_on.wait(SOON)

    stalled = pool.submit(stall)
    assert blocked.wait(SOON)
    wait_until(lambda: pool._working == 0)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    later = pool.submit(int, "7")
    go_on.set()
    stalled.result(SOON)
    assert later.result(SOON) == 7
    pool.shutdown()


def test_shutdown_finishes_submitted_tasks() -> None:
    pool = ElasticThreadPool(2)
    futures = [pool.submit(pow, 2, number) for number in range(20)]
    pool.shutdown()
    assert [future.result(SOON) for future in futures] == [2**number for number in range(20)]


def test_blocking_outside_a_pool_does_nothing() -> None:
    with blocking():
        pass


def test_background_tasks_run_in_order_in_a_limited_number_of_threads() -> None:
    tasks, done, barrier = BackgroundTasks(2, 10**6), [], threading.Barrier(2, timeout=SOON)
    assert tasks.submit(barrier.wait)
    assert tasks.submit(barrier.wait)  # the two run at the same time
    assert tasks.wait(SOON)
    one = BackgroundTasks(1, 10**6)
    for number in range(10):
        assert one.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert one.wait(SOON)
    assert done == list(range(10))


def test_background_tasks_hold_a_limited_number_of_bytes() -> None:
    tasks, may_end = BackgroundTasks(1, 200_000), threading.Event()
    assert tasks.submit(may_end.wait, 100_000)
    assert not tasks.submit(may_end.wait, 100_001)
    assert tasks.submit(may_end.wait, 1)  # counts as 64 KiB
    assert not tasks.submit(may_end.wait, 1)
    assert not tasks.wait(0)
    may_end.set()
    assert tasks.wait(SOON)
    assert tasks.submit(may_end.wait, 200_000)
    assert tasks.wait(SOON)


def test_a_background_task_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    tasks, done = BackgroundTasks(1, 10**6), threading.Event()
    assert tasks.submit(lambda: 1 // 0)
    assert tasks.submit(done.set)
    assert tasks.wait(SOON)
    assert done.is_set()
    assert "ZeroDivisionError" in caplog.text
