"""The bound on threads that wait for the store."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.core.errors import StoreBusy
from app.core.limiters import Bulkhead
from app.core.thread_pool import ElasticThreadPool
from tests.waiting import wait_until

SOON = 30


class Store:
    """Calls that last until they are answered."""

    def __init__(self, bulkhead: Bulkhead, pool: ThreadPoolExecutor) -> None:
        self.bulkhead = bulkhead
        self.answers = threading.Semaphore(0)
        self.calling = 0
        self._pool = pool

    def call(self) -> str:
        """Call, and wait for the answer."""
        with self.bulkhead.calling():
            self.calling += 1
            assert self.answers.acquire(timeout=SOON)
            self.calling -= 1
        return "answered"

    def begin(self, calls: int) -> None:
        """Have so many calls under way."""
        for _ in range(calls):
            self._pool.submit(self.call)
        wait_until(lambda: self.calling == calls)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads enough."""
    with ThreadPoolExecutor(100) as pool:
        yield pool


@pytest.fixture
def store(pool: ThreadPoolExecutor) -> Iterator[Store]:
    """Two calls at once; all are answered at the end."""
    store = Store(Bulkhead(2, max_waiting=3, silence=0.2), pool)
    yield store
    store.answers.release(100)


def test_no_more_than_its_places_call_at_once(pool: ThreadPoolExecutor) -> None:
    store = Store(Bulkhead(2), pool)
    futures = [pool.submit(store.call) for _ in range(20)]
    for _ in range(20):
        wait_until(lambda: store.calling > 0)
        assert store.calling <= 2
        store.answers.release()
    assert [future.result(SOON) for future in futures] == ["answered"] * 20


def test_a_silent_store_refuses_who_waits_and_who_comes(store: Store) -> None:
    store.begin(2)
    for _ in range(2):  # the first waits for the silence, the second finds it
        with pytest.raises(StoreBusy) as caught, store.bulkhead.calling():
            pass
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "store_busy", 5)


def test_progress_lets_others_wait_on(pool: ThreadPoolExecutor) -> None:
    store = Store(Bulkhead(1, silence=1.0), pool)
    store.begin(1)
    waits = pool.submit(store.call)
    for _ in range(30):
        threading.Event().wait(0.1)
        store.bulkhead.note_progress()
    assert not waits.done()
    store.answers.release(2)
    assert waits.result(SOON) == "answered"


def test_patience_ends_whatever_the_store_does(pool: ThreadPoolExecutor) -> None:
    store = Store(Bulkhead(1, slot_timeout=0.2, silence=60), pool)
    store.begin(1)
    with pytest.raises(StoreBusy), store.bulkhead.calling():
        pass
    store.answers.release()


def test_it_is_silent_only_while_calls_are_under_way(store: Store) -> None:
    assert not store.bulkhead.is_silent()
    store.begin(1)
    wait_until(store.bulkhead.is_silent)
    store.bulkhead.note_progress()
    assert not store.bulkhead.is_silent()
    wait_until(store.bulkhead.is_silent)
    store.answers.release()
    wait_until(lambda: store.calling == 0)
    wait_until(lambda: not store.bulkhead.is_silent())


def test_those_who_wait_without_calling_are_bounded_too(store: Store, pool: ThreadPoolExecutor) -> None:
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


def test_a_thread_takes_one_place() -> None:
    bulkhead = Bulkhead(1, max_waiting=0)
    with bulkhead.calling(), bulkhead.waiting(), bulkhead.calling():
        pass
    with bulkhead.waiting(), bulkhead.calling():
        pass


def test_an_error_gives_the_place_back() -> None:
    bulkhead = Bulkhead(1, max_waiting=0)
    for _ in range(3):
        with pytest.raises(KeyError), bulkhead.calling():
            raise KeyError
    with bulkhead.calling():
        pass


def test_who_waits_holds_no_thread_of_the_worker() -> None:
    """Of two threads: two that call, and two that wait for that, leave both to others."""
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
