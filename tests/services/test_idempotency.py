"""Work under one key is done once; what goes wrong leaves the key usable."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.errors import IdempotencyKeyInUse, IdempotencyKeyReused, StateUnavailable
from app.services.idempotency import Ledger, Once, Outcome, Rules
from tests.waiting import wait_until

RULES = Rules(lifetime=600, patience=60)
ROOT = Path(__file__).parent.parent.parent

HOLDS_A_KEY = """
import sys, time
from pathlib import Path
from app.services.idempotency import Ledger
from app.services.idempotency import Once, Rules

def work():
    print("begun", flush=True)
    time.sleep(60)

directory = Path(sys.argv[1])
Once(directory / "under-way", Ledger(directory / "db")).run("key", "request", Rules(60, 10), work)
"""


@pytest.fixture
def once(tmp_path: Path) -> Once:
    """One of its own directory."""
    return Once(tmp_path / "under-way", Ledger(tmp_path / "db"))


class Work:
    """Counts how often it is done; takes `seconds`."""

    def __init__(self, seconds: float = 0, *, is_final: bool = True) -> None:
        self.done = 0
        self._seconds = seconds
        self._is_final = is_final

    def __call__(self) -> Outcome:
        """Do it."""
        self.done += 1
        time.sleep(self._seconds)
        return Outcome("request", f"{self.done}", self._is_final, time.time())


def test_of_many_at_once_one_works(once: Once, tmp_path: Path) -> None:
    work = Work(0.3)
    with ThreadPoolExecutor(30) as pool:
        outcomes = set(pool.map(lambda _: once.run("key", "request", RULES, work), range(60)))
    assert work.done == len(outcomes) == 1
    assert list((tmp_path / "under-way").iterdir()) == []


class Held(Work):
    """Says when it has begun, and ends when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> Outcome:
        """Do it."""
        self.began.set()
        assert self.may_end.wait(60)
        return super().__call__()


def test_other_keys_do_not_wait(once: Once) -> None:
    held = Held()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(once.run, "one", "request", RULES, held)
        assert held.began.wait(30)
        once.run("two", "request", RULES, Work())
        assert not first.done()
        held.may_end.set()


def test_a_failure_is_told_to_those_who_waited_and_tried_again_by_the_next(
    once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, recall = Work(is_final=False), once._ledger.recall
    recalled: list[str] = []

    def noted(key: str) -> Outcome | None:
        recalled.append(key)
        return recall(key)

    def work_when_all_have_come() -> Outcome:
        wait_until(lambda: len(recalled) > 10)  # each looks when it comes, and this one has looked once more
        return work()

    monkeypatch.setattr(once._ledger, "recall", noted)
    with ThreadPoolExecutor(10) as pool:
        runs = [pool.submit(once.run, "key", "request", RULES, work_when_all_have_come) for _ in range(10)]
        outcomes = {run.result(60) for run in runs}
    assert work.done == len(outcomes) == 1
    assert once.run("key", "request", RULES, work).result == "2"
    assert once.run("key", "another request", RULES, Work()).result == "1"


def test_another_request_under_the_key_is_refused(once: Once) -> None:
    held = Held()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(once.run, "key", "request", RULES, held)
        assert held.began.wait(30)
        with pytest.raises(IdempotencyKeyReused):
            once.run("key", "another", RULES, Work())
        held.may_end.set()
        first.result(30)
    with pytest.raises(IdempotencyKeyReused):
        once.run("key", "another", RULES, Work())


def test_patience_ends(once: Once) -> None:
    held = Held()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(once.run, "key", "request", RULES, held)
        assert held.began.wait(30)
        with pytest.raises(IdempotencyKeyInUse):
            once.run("key", "request", replace(RULES, patience=0.2), held)
        held.may_end.set()
        first.result(30)
    assert held.done == 1


def test_what_does_not_count_is_done_again(once: Once) -> None:
    work = Work()
    rules = replace(RULES, counts=lambda outcome: outcome.result == "2")
    results = [once.run("key", "request", rules, work).result for _ in range(3)]
    assert results == ["1", "2", "2"]


def test_work_that_crashes_lets_go_of_the_key(once: Once) -> None:
    def crash() -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        once.run("key", "request", RULES, crash)
    assert once.run("key", "request", RULES, Work()).result == "1"


def test_a_killed_process_lets_go_of_the_key(once: Once, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS_A_KEY, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        with pytest.raises(IdempotencyKeyInUse):
            once.run("key", "request", replace(RULES, patience=0.2), Work())
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(once.run, "key", "request", RULES, Work())
            time.sleep(0.2)
            process.send_signal(signal.SIGKILL)
            assert waiting.result(30).result == "1"


def test_what_killed_processes_left_is_swept_after_a_day(once: Once, tmp_path: Path) -> None:
    once.run("first", "request", RULES, Work())
    for name, age in (("old", 90_000), ("new", 60)):
        path = tmp_path / "under-way" / name
        path.write_text("request")
        os.utime(path, (time.time() - age,) * 2)
    once.run("key", "request", RULES, Work())
    assert [path.name for path in (tmp_path / "under-way").iterdir()] == ["new"]


def test_what_was_paid_for_is_answered_though_it_can_not_be_kept(once: Once, tmp_path: Path) -> None:
    def work_and_break() -> Outcome:
        (tmp_path / "db").write_bytes(b"no database" * 100)
        return Work()()

    assert once.run("key", "request", RULES, work_and_break).result == "1"


def _remove(directory: Path) -> None:
    shutil.rmtree(directory)


def _replace_by_a_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_text("")


@pytest.mark.parametrize("spoil", [_remove, _replace_by_a_file])
@pytest.mark.parametrize("what", ["under-way", "."])
def test_what_was_paid_for_is_answered_though_the_directory_is_gone(
    tmp_path: Path, spoil: Callable[[Path], None], what: str
) -> None:
    state = tmp_path / "state"

    def work_and_spoil() -> Outcome:
        spoil(state / what)
        return Work()()

    once = Once(state / "under-way", Ledger(state / "db"))
    assert once.run("key", "request", RULES, work_and_spoil).result == "1"


def test_what_was_paid_for_is_answered_though_nothing_can_be_removed(
    once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, **_: bool) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def work_and_break() -> Outcome:
        monkeypatch.setattr(Path, "unlink", read_only)
        return Work()()

    assert once.run("key", "request", RULES, work_and_break).result == "1"
    monkeypatch.undo()
    assert once.run("another", "request", RULES, Work()).result == "1"


def test_a_directory_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    work = Work()
    with pytest.raises(StateUnavailable):
        Once(tmp_path / "file" / "under-way", Ledger(tmp_path / "db")).run("key", "request", RULES, work)
    assert work.done == 0
