"""Limits on concurrent calls to the store and on concurrent decoding."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.core.errors import Busy, StoreBusy
from app.core.threads import Bulkhead, DecodeLimiter, ElasticThreadPool
from tests.waiting import wait_until

SOON = 30


class Store:
    """A store whose calls last until the test releases `answers`."""

    def __init__(self, bulkhead: Bulkhead, pool: ThreadPoolExecutor) -> None:
        self.bulkhead = bulkhead
        self.answers = threading.Semaphore(0)
        self.calling = 0
        self._pool = pool

    def call(self) -> str:
        """Call the store and wait until the call ends."""
        with self.bulkhead.calling():
            self.calling += 1
            assert self.answers.acquire(timeout=SOON)
            self.calling -= 1
        return "answered"

    def begin(self, calls: int) -> None:
        """Start this number of calls, and wait until all of them are in progress."""
        for _ in range(calls):
            self._pool.submit(self.call)
        wait_until(lambda: self.calling == calls)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """A pool with more threads than any test uses."""
    with ThreadPoolExecutor(100) as pool:
        yield pool


@pytest.fixture
def store(pool: ThreadPoolExecutor) -> Iterator[Store]:
    """A store that accepts two calls at once. All calls end with the test."""
    store = Store(Bulkhead(2, max_waiting=3, silence=0.2), pool)
    yield store
    store.answers.release(100)


def test_no_more_threads_than_slots_call_at_once(pool: ThreadPoolExecutor) -> None:
    store = Store(Bulkhead(2), pool)
    futures = [pool.submit(store.call) for _ in range(20)]
    for _ in range(20):
        wait_until(lambda: store.calling > 0)
        assert store.calling <= 2
        store.answers.release()
    assert [future.result(SOON) for future in futures] == ["answered"] * 20


def test_a_silent_store_fails_waiting_and_new_calls(store: Store) -> None:
    store.begin(2)
    for _ in range(2):  # the first waits until the store is silent, the second fails at once
        with pytest.raises(StoreBusy) as caught, store.bulkhead.calling():
            pass
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "store_busy", 5)


def test_calls_keep_waiting_while_the_store_makes_progress(pool: ThreadPoolExecutor) -> None:
    store = Store(Bulkhead(1, silence=1.0), pool)
    store.begin(1)
    waits = pool.submit(store.call)
    for _ in range(30):
        threading.Event().wait(0.1)
        store.bulkhead.note_progress()
    assert not waits.done()
    store.answers.release(2)
    assert waits.result(SOON) == "answered"


def test_waiting_for_a_slot_times_out_even_while_the_store_makes_progress(pool: ThreadPoolExecutor) -> None:
    store = Store(Bulkhead(1, slot_timeout=0.2, silence=60), pool)
    store.begin(1)
    with pytest.raises(StoreBusy), store.bulkhead.calling():
        pass
    store.answers.release()


def test_the_store_is_silent_only_while_calls_are_in_progress(store: Store) -> None:
    assert not store.bulkhead.is_silent()
    store.begin(1)
    wait_until(store.bulkhead.is_silent)
    store.bulkhead.note_progress()
    assert not store.bulkhead.is_silent()
    wait_until(store.bulkhead.is_silent)
    store.answers.release()
    wait_until(lambda: store.calling == 0)
    wait_until(lambda: not store.bulkhead.is_silent())


def test_threads_that_wait_without_calling_are_counted(store: Store, pool: ThreadPoolExecutor) -> None:
    go_on = threading.Event()

    def wait() -> None:
        with store.bulkhead.waiting():
            assert go_on.wait(SOON)

    waiting = [pool.submit(wait) for _ in range(5)]
    wait_until(lambda: store.bulkhead._present == 5)
    with pytest.raises(StoreBusy), store.bulkhead.waiting():
        pass
    with pytest.raises(StoreBusy), store.bulkhead.calling():
        pass
    go_on.set()
    for future in waiting:
        future.result(SOON)
    with store.bulkhead.calling():
        pass


def test_nested_blocks_of_a_thread_share_one_slot() -> None:
    bulkhead = Bulkhead(1, max_waiting=0)
    with bulkhead.calling(), bulkhead.waiting(), bulkhead.calling():
        pass
    with bulkhead.waiting(), bulkhead.calling():
        pass


def test_an_error_releases_the_slot_of_a_call() -> None:
    bulkhead = Bulkhead(1, max_waiting=0)
    for _ in range(3):
        with pytest.raises(KeyError), bulkhead.calling():
            raise KeyError
    with bulkhead.calling():
        pass


def test_waiting_threads_do_not_occupy_the_pool() -> None:
    """If two threads are calling and two are waiting, both threads of the pool are free for other tasks."""
    pool, bulkhead, go_on = ElasticThreadPool(2), Bulkhead(2, silence=60), threading.Event()

    def call() -> str:
        with bulkhead.calling():
            assert go_on.wait(SOON)
        return "called"

    def quick() -> str:
        both.wait()
        return "quick"

    calls = [pool.submit(call) for _ in range(4)]
    wait_until(lambda: bulkhead._present == 4)
    both = threading.Barrier(2, timeout=SOON)
    assert [future.result(SOON) for future in [pool.submit(quick), pool.submit(quick)]] == ["quick"] * 2
    go_on.set()
    assert [future.result(SOON) for future in calls] == ["called"] * 4
    pool.shutdown()


def test_no_more_threads_than_slots_decode_at_once() -> None:
    limiter, inside, most = DecodeLimiter(2, 30), 0, 0
    lock, both = threading.Lock(), threading.Barrier(2, timeout=30)

    def work() -> None:
        nonlocal inside, most
        with limiter.slot():
            with lock:
                inside += 1
                most = max(most, inside)
            both.wait()
            time.sleep(0.02)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_waiting_too_long_for_a_decode_slot_raises_busy() -> None:
    limiter = DecodeLimiter(1, 0.05)
    with limiter.slot(), pytest.raises(Busy) as caught, limiter.slot():
        pass
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "busy", 2)


def test_a_caller_can_wait_longer_than_the_default_timeout() -> None:
    limiter, waits = DecodeLimiter(1, 0.05), threading.Event()

    def wait() -> None:
        waits.set()
        with limiter.slot(20):
            pass

    with ThreadPoolExecutor(1) as pool:
        with limiter.slot():
            waiting = pool.submit(wait)
            assert waits.wait(30)
            time.sleep(0.2)
        waiting.result(20)


def test_an_error_releases_the_slot_of_a_decode() -> None:
    limiter = DecodeLimiter(1, 0.05)
    with pytest.raises(KeyError), limiter.slot():
        raise KeyError
    with limiter.slot():
        pass
