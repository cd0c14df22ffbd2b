"""Tests of idempotency keys: work is done once per key, a failure releases the key, records are limited."""

import errno
import json
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
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.core.errors import IdempotencyKeyInUse, IdempotencyKeyReused, PromptRefused, StateUnavailable
from app.core.object_metadata import ImageInfo
from app.services.drawing import StoredGeneration
from app.services.idempotency import IdempotencyKeys, IdempotencyRecord, IdempotencyRecords
from app.services.images import StoredImage
from app.services.urls import ImageUrls
from app.stores.base import BaseStore
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent

HOLD_A_KEY = """
import sys, time
from pathlib import Path
from app.services.idempotency import IdempotencyKeys, IdempotencyRecords

directory = Path(sys.argv[1])
keys = IdempotencyKeys(directory / "under-way", IdempotencyRecords(directory / "db"))
with keys.claim("key", "request", time.monotonic() + 10):
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def keys(tmp_path: Path) -> IdempotencyKeys:
    """Return keys in a separate directory."""
    return IdempotencyKeys(tmp_path / "under-way", IdempotencyRecords(tmp_path / "db"))


class Work:
    """Work that takes `seconds`. Its result is how many times it was done."""

    def __init__(self, seconds: float = 0, *, is_final: bool = True) -> None:
        self.done = 0
        self._seconds = seconds
        self._is_final = is_final

    def __call__(self) -> IdempotencyRecord:
        """Do the work."""
        self.done += 1
        time.sleep(self._seconds)
        return IdempotencyRecord("request", f"{self.done}", self._is_final, time.time())


class HeldWork(Work):
    """Work that signals when it has begun, and waits until it may end."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> IdempotencyRecord:
        """Wait, then do the work."""
        self.began.set()
        assert self.may_end.wait(60)
        return super().__call__()


def _run(
    keys: IdempotencyKeys,
    work: Callable[[], IdempotencyRecord],
    *,
    key: str = "key",
    request: str = "request",
    seconds: float = 60,
) -> str:
    """Do the work, unless another request with the key has done it. Return the result."""
    with keys.claim(key, request, time.monotonic() + seconds) as record:
        if record is None:
            record = work()
            keys.save(key, record)
    return record.result


def test_work_is_done_once_by_simultaneous_requests(keys: IdempotencyKeys, tmp_path: Path) -> None:
    work = Work(0.3)
    with ThreadPoolExecutor(30) as pool:
        results = set(pool.map(lambda _: _run(keys, work), range(60)))
    assert work.done == len(results) == 1
    assert list((tmp_path / "under-way").iterdir()) == []


def test_other_keys_do_not_wait(keys: IdempotencyKeys) -> None:
    held = HeldWork()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(_run, keys, held, key="one")
        assert held.began.wait(30)
        _run(keys, Work(), key="two")
        assert not first.done()
        held.may_end.set()


def test_requests_that_waited_get_the_failure_but_later_ones_do_not(
    keys: IdempotencyKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, find = Work(is_final=False), keys._records.find
    looked_up: list[str] = []

    def noted(key: str) -> IdempotencyRecord | None:
        looked_up.append(key)
        return find(key)

    def work_when_all_have_come() -> IdempotencyRecord:
        wait_until(
            lambda: len(looked_up) > 10
        )  # each request looks once, and the one that holds the key looks again
        return work()

    monkeypatch.setattr(keys._records, "find", noted)
    with ThreadPoolExecutor(10) as pool:
        runs = [pool.submit(_run, keys, work_when_all_have_come) for _ in range(10)]
        results = {run.result(60) for run in runs}
    assert work.done == len(results) == 1
    assert _run(keys, work) == "2"
    assert _run(keys, Work(), request="another request") == "1"


def test_a_key_with_a_different_request_is_rejected(keys: IdempotencyKeys) -> None:
    held = HeldWork()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(_run, keys, held)
        assert held.began.wait(30)
        with pytest.raises(IdempotencyKeyReused):
            _run(keys, Work(), request="another")
        held.may_end.set()
        first.result(30)
    with pytest.raises(IdempotencyKeyReused):
        _run(keys, Work(), request="another")


def test_waiting_for_a_key_ends_at_the_deadline(keys: IdempotencyKeys) -> None:
    held = HeldWork()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(_run, keys, held)
        assert held.began.wait(30)
        with pytest.raises(IdempotencyKeyInUse):
            _run(keys, held, seconds=0.2)
        held.may_end.set()
        first.result(30)
    assert held.done == 1


def test_an_exception_releases_the_key(keys: IdempotencyKeys) -> None:
    def crash() -> IdempotencyRecord:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _run(keys, crash)
    assert _run(keys, Work()) == "1"


def test_a_killed_process_releases_the_key(keys: IdempotencyKeys, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_A_KEY, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        with pytest.raises(IdempotencyKeyInUse):
            _run(keys, Work(), seconds=0.2)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(_run, keys, Work())
            time.sleep(0.2)
            process.send_signal(signal.SIGKILL)
            assert waiting.result(30) == "1"


def test_files_of_killed_processes_are_removed_after_a_day(keys: IdempotencyKeys, tmp_path: Path) -> None:
    _run(keys, Work(), key="first")
    for name, age in (("old", 90_000), ("new", 60)):
        path = tmp_path / "under-way" / name
        path.write_text("request")
        os.utime(path, (time.time() - age,) * 2)
    _run(keys, Work())
    assert [path.name for path in (tmp_path / "under-way").iterdir()] == ["new"]


def test_a_result_is_returned_even_if_it_cannot_be_recorded(keys: IdempotencyKeys, tmp_path: Path) -> None:
    def work_and_break() -> IdempotencyRecord:
        (tmp_path / "db").write_bytes(b"no database" * 100)
        return Work()()

    assert _run(keys, work_and_break) == "1"


def _remove(directory: Path) -> None:
    shutil.rmtree(directory)


def _replace_by_a_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_text("")


@pytest.mark.parametrize("spoil", [_remove, _replace_by_a_file])
@pytest.mark.parametrize("what", ["under-way", "."])
def test_a_result_is_returned_even_if_the_directory_is_gone(
    tmp_path: Path, spoil: Callable[[Path], None], what: str
) -> None:
    state = tmp_path / "state"

    def work_and_spoil() -> IdempotencyRecord:
        spoil(state / what)
        return Work()()

    keys = IdempotencyKeys(state / "under-way", IdempotencyRecords(state / "db"))
    assert _run(keys, work_and_spoil) == "1"


def test_a_result_is_returned_even_if_no_file_can_be_removed(
    keys: IdempotencyKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, **_: bool) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def work_and_break() -> IdempotencyRecord:
        monkeypatch.setattr(Path, "unlink", read_only)
        return Work()()

    assert _run(keys, work_and_break) == "1"
    monkeypatch.undo()
    assert _run(keys, Work(), key="another") == "1"


def test_no_work_is_done_if_the_directory_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    work = Work()
    with pytest.raises(StateUnavailable):
        _run(IdempotencyKeys(tmp_path / "file" / "under-way", IdempotencyRecords(tmp_path / "db")), work)
    assert work.done == 0


def _record(result: str = "{}", age: float = 0) -> IdempotencyRecord:
    return IdempotencyRecord("request", result, True, time.time() - age)


def test_records_are_found_by_their_key(tmp_path: Path) -> None:
    record = IdempotencyRecord("request", '{"images": []}', False, time.time())
    IdempotencyRecords(tmp_path / "deep" / "db").save("key", record, 60)
    assert IdempotencyRecords(tmp_path / "deep" / "db").find("key") == record
    assert IdempotencyRecords(tmp_path / "deep" / "db").find("other") is None


def test_a_later_record_replaces_the_earlier(tmp_path: Path) -> None:
    records = IdempotencyRecords(tmp_path / "db")
    for result in ("1", "2"):
        records.save("key", _record(result), 60)
    found = records.find("key")
    assert found
    assert found.result == "2"


def test_an_expired_record_is_not_found(tmp_path: Path) -> None:
    records = IdempotencyRecords(tmp_path / "db")
    records.save("key", _record(age=61), 60)
    assert records.find("key") is None


@pytest.mark.parametrize("limits", [{"max_rows": 5}, {"max_bytes": 50}])
def test_the_oldest_records_are_deleted_to_make_room(tmp_path: Path, limits: dict[str, int]) -> None:
    records = IdempotencyRecords(tmp_path / "db", **limits)
    for number in range(12):
        records.save(f"key-{number}", _record("x" * 10, age=100 - number), 1000)
    found = [number for number in range(12) if records.find(f"key-{number}")]
    assert found == [7, 8, 9, 10, 11]


def test_the_size_of_the_database_is_limited(tmp_path: Path) -> None:
    records = IdempotencyRecords(tmp_path / "db", max_bytes=100_000)
    for number in range(120):
        records.save(f"{number:064}", _record("x" * 4000), 1000)
    assert (tmp_path / "db").stat().st_size < 250_000


@pytest.mark.parametrize("content", [b"no database, but longer than its header would be" * 9, None])
def test_an_unusable_database_is_an_error_that_names_no_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "db"
    path.write_bytes(content) if content else path.mkdir()
    with pytest.raises(StateUnavailable) as caught:
        IdempotencyRecords(path).find("key")
    assert str(path) not in caught.value.message


STORED = StoredImage(
    "generated/2026/11/one.png",
    "/api/images/generated/2026/11/one.png",
    "image/png",
    64,
    48,
    1,
    1234,
    True,
    ImageInfo(64, 48, 1, True, "3OcRJYB4d3h/iIeHeEh3eIhw+j2w"),
)


def test_a_recorded_image_has_all_its_facts(store: BaseStore) -> None:
    generation = StoredGeneration(STORED, "model", 7, datetime(2026, 11, 30, 12, 0, tzinfo=UTC))
    record = IdempotencyRecord.from_images("request", [generation])
    assert record.generations(ImageUrls(store, "auto", "")) == [generation]


def test_an_image_recorded_by_an_older_version_has_no_further_facts(store: BaseStore) -> None:
    generation = StoredGeneration(STORED, "model", None, datetime(2026, 11, 30, 12, 0, tzinfo=UTC))
    record = IdempotencyRecord.from_images("request", [generation])
    older = json.loads(record.result)
    del older["images"][0]["info"]
    (found,) = replace(record, result=json.dumps(older)).generations(ImageUrls(store, "auto", ""))
    assert found == replace(generation, image=replace(STORED, info=None))


def test_an_error_recorded_by_an_older_version_is_understood(store: BaseStore) -> None:
    result = json.dumps({"code": "prompt_refused", "message": "No."})
    with pytest.raises(PromptRefused, match="No") as caught:
        IdempotencyRecord("", result, True, 0.0).generations(ImageUrls(store, "auto", ""))
    assert caught.value.retry_after is None
