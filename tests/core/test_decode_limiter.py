"""A bound on what is in work at once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.core.errors import Busy
from app.core.limiters import DecodeLimiter


def test_no_more_than_its_places_are_inside() -> None:
    gate, inside, most = DecodeLimiter(2, 30), 0, 0
    lock, both = threading.Lock(), threading.Barrier(2, timeout=30)

    def work() -> None:
        nonlocal inside, most
        with gate.slot():
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


def test_who_waits_too_long_is_told() -> None:
    gate = DecodeLimiter(1, 0.05)
    with gate.slot(), pytest.raises(Busy) as caught, gate.slot():
        pass
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "busy", 2)


def test_one_may_be_more_patient_than_others() -> None:
    gate, waits = DecodeLimiter(1, 0.05), threading.Event()

    def wait() -> None:
        waits.set()
        with gate.slot(20):
            pass

    with ThreadPoolExecutor(1) as pool:
        with gate.slot():
            waiting = pool.submit(wait)
            assert waits.wait(30)
            time.sleep(0.2)
        waiting.result(20)


def test_a_place_comes_back_after_an_error() -> None:
    gate = DecodeLimiter(1, 0.05)
    with pytest.raises(KeyError), gate.slot():
        raise KeyError
    with gate.slot():
        pass
