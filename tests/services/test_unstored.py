"""Drawn images on disk: written durably, bounded in files, bytes and time, and never a wrong image."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.core.objects import FORMATS
from app.core.system import locked
from app.imaging.check import CheckedImage
from app.services import unstored as spool_module
from app.services.drawing import Drawn
from app.services.unstored import MOST_BYTES, Spool, Unstored
from tests.pictures import noise
from tests.server.disk import small_file_system

ROOT = Path(__file__).parent.parent.parent
NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
ORDER, OTHER = "a" * 64, "b" * 64


def _image(data: bytes = b"\x89PNG\n\x00any bytes\n", **fields: Any) -> Unstored:
    checked = CheckedImage(data, FORMATS["png"], 64, 48, 1)
    return replace(Unstored("generated/2026/11/one.png", Drawn(checked, "model-ü", 7), NOW), **fields)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the files lie."""
    return tmp_path / "state" / "unstored"


@pytest.fixture
def spool(directory: Path) -> Spool:
    """With the bounds of the product."""
    return Spool(directory)


def _files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_is_kept_is_found_by_another_process_until_it_is_forgotten(
    spool: Spool, directory: Path
) -> None:
    first, third = _image(), _image(noise(1), key="another.png")
    spool.keep(ORDER, 0, first)
    spool.keep(ORDER, 2, third)
    spool.keep(OTHER, 0, third)
    assert Spool(directory).recall(ORDER, 4) == {0: first, 2: third}
    spool.forget(ORDER, 4)
    assert Spool(directory).recall(ORDER, 4) == {}
    assert spool.recall(OTHER, 1) == {0: third}
    assert _files(directory) == [f"{OTHER}.0"]


def test_only_its_owner_can_read_it(spool: Spool, directory: Path) -> None:
    before = os.umask(0)
    try:
        spool.keep(ORDER, 0, _image())
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (directory, directory / f"{ORDER}.0")]
    assert modes == [0o700, 0o600]


def test_the_file_and_its_name_are_synced(
    spool: Spool, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def noted(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), _files(directory)))

    monkeypatch.setattr(os, "fsync", noted)
    spool.keep(ORDER, 0, _image())
    (file, before), (parent, after) = synced
    assert [file.name] == before
    assert (parent, after) == (directory, [f"{ORDER}.0"])


def test_the_oldest_make_room_when_there_are_too_many(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(directory, most_files=3)
    for number in range(5):
        spool.keep(ORDER, number, _image())
        os.utime(directory / f"{ORDER}.{number}", (time.time() - 100 + number,) * 2)
    assert sorted(spool.recall(ORDER, 5)) == [2, 3, 4]
    assert "1 drawn images, never stored, were removed from STATE_DIR to make room" in caplog.text


def test_the_total_stays_within_its_bytes_whoever_writes(directory: Path) -> None:
    most, data = 10 * 8192, bytes(7000)
    spools = [Spool(directory, most_bytes=most) for _ in range(4)]
    totals = []

    def keep(number: int) -> None:
        spools[number % 4].keep(ORDER, number, _image(data))
        sizes = []
        for path in directory.iterdir():
            try:
                sizes.append(-(-path.stat().st_size // 4096) * 4096)
            except FileNotFoundError:
                continue
        totals.append(sum(sizes))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, range(60)))
    assert len(spools[0].recall(ORDER, 60)) == 10
    assert max(totals) <= most


def test_what_is_larger_than_all_that_may_be_kept_removes_nothing(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(directory, most_bytes=8192)
    spool.keep(ORDER, 0, _image())
    spool.keep(ORDER, 1, _image(bytes(9000)))
    assert list(spool.recall(ORDER, 2)) == [0]
    assert "can't be kept in STATE_DIR" in caplog.text


@pytest.mark.parametrize("away", [-86_500, 86_500], ids=["past", "future"])
def test_a_day_away_it_is_neither_used_nor_kept(spool: Spool, directory: Path, away: int) -> None:
    spool.keep(ORDER, 0, _image())
    (directory / "left-by-a-killed-process.tmp").write_bytes(b"half")
    for path in directory.iterdir():
        os.utime(path, (time.time() + away,) * 2)
    spool.keep(OTHER, 2, _image())
    os.utime(directory / f"{OTHER}.2", (time.time() - 86_300,) * 2)
    (directory / "left-by-another.tmp").write_bytes(b"half")
    os.utime(directory / "left-by-another.tmp", (time.time() + away,) * 2)
    assert spool.recall(ORDER, 1) == {}
    (directory / "a-directory").mkdir()
    spool.keep(OTHER, 0, _image())
    spool.keep(OTHER, 1, _image())
    assert _files(directory) == ["a-directory", *(f"{OTHER}.{number}" for number in range(3))]


def test_a_directory_that_can_not_be_synced_is_no_obstacle(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.fsync

    def refuse_directories(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_directories)
    spool.keep(ORDER, 0, _image())
    assert list(spool.recall(ORDER, 1)) == [0]
    assert caplog.text == ""


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def _no_header(content: bytes) -> bytes:
    return content.partition(b"\n")[2]


@pytest.mark.parametrize(
    "spoil",
    [
        _cut,
        _flip,
        _no_header,
        lambda content: b"",
        lambda content: b"\0" * len(content),
        lambda content: b"[]\n" + content,
        lambda content: content.replace(b'"png"', b'"svg"'),
        lambda content: b"[" * 100_000,
    ],
    ids=range(8),
)
def test_a_damaged_file_is_no_image(
    spool: Spool, directory: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytes], bytes]
) -> None:
    spool.keep(ORDER, 0, _image())
    path = directory / f"{ORDER}.0"
    path.write_bytes(spoil(path.read_bytes()))
    assert spool.recall(ORDER, 1) == {}
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["open", "truncate", "fsync"])
def test_a_disk_that_takes_nothing_is_logged_and_left_clean(
    spool: Spool,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
    error: int,
) -> None:
    spool.keep(OTHER, 0, _image())
    real = getattr(os, call)

    def fail(target: Any, *args: Any, **options: Any) -> Any:
        if call == "open" and not str(target).endswith(".tmp"):
            return real(target, *args, **options)
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, call, fail)
    spool.keep(ORDER, 0, _image())
    monkeypatch.undo()
    assert spool.recall(ORDER, 1) == {}
    assert _files(directory) == [f"{OTHER}.0"]
    assert "A drawn image can't be kept in STATE_DIR until it is stored" in caplog.text


def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_file_system(tmp_path / "small") as small:
        spool = Spool(small / "unstored")
        spool.keep(ORDER, 0, _image(os.urandom(2_000_000)))
        spool.keep(ORDER, 1, _image(os.urandom(2_000_000)))
        assert list(spool.recall(ORDER, 2)) == [0]
        assert _files(small / "unstored") == [f"{ORDER}.0"]
    assert "No space left on device" in caplog.text


def test_a_process_that_holds_the_lock_and_stops_does_not_stop_the_others(
    spool: Spool, directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spool_module, "_LOCK_SECONDS", 0.05)
    directory.mkdir(parents=True)
    with locked(directory.with_name("unstored.lock")):
        spool.keep(ORDER, 0, _image())
    assert "another process holds" in caplog.text


def test_a_directory_that_can_not_be_made_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file")
    spool = Spool(tmp_path / "state" / "unstored")
    spool.keep(ORDER, 0, _image())
    assert spool.recall(ORDER, 1) == {}
    spool.forget(ORDER, 1)
    assert "can't be kept in STATE_DIR" in caplog.text


def test_a_seed_that_json_can_not_say_is_logged(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    drawn: Any = Drawn(_image().drawn.checked, "model", object())  # type: ignore[arg-type]
    spool.keep(ORDER, 0, _image(drawn=drawn))
    assert "can't be kept in STATE_DIR" in caplog.text


KEEPS_AND_IS_KILLED = """
import sys
from pathlib import Path
from app.services.unstored import Spool
from tests.services.test_unstored import ORDER, _image

spool, number = Spool(Path(sys.argv[1])), 0
while True:
    spool.keep(ORDER, number, _image(bytes([number % 256]) * 300_000))
    print(number, flush=True)
    number += 1
"""


def test_what_a_killed_process_had_kept_is_whole(spool: Spool, directory: Path) -> None:
    command = [sys.executable, "-c", KEEPS_AND_IS_KILLED, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        while process.stdout.readline() != b"5\n":
            pass
        process.send_signal(signal.SIGKILL)
    found = spool.recall(ORDER, 1000)
    assert list(found)[:6] == list(range(6))
    for number, image in found.items():
        assert image.drawn.checked.data == bytes([number % 256]) * 300_000


def test_the_documents_say_how_much_is_kept() -> None:
    said = f"{MOST_BYTES // 1024**2} MiB"
    for name in ("docs/limits.md", "docs/generation.md", "docs/settings.md"):
        assert said in (ROOT / name).read_text(encoding="utf-8"), name
