"""Tests of generated images on disk, which are written durably and limited in number, size and age."""

import errno
import json
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
from app.services import unstored as unstored_module
from app.services.drawing import DrawnImage
from app.services.unstored import MAX_BYTES, UnstoredImage, UnstoredImages
from tests.pictures import noise
from tests.server.disk import small_file_system

ROOT = Path(__file__).parent.parent.parent
NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
REQUEST, OTHER = "a" * 64, "b" * 64


def _image(data: bytes = b"\x89PNG\n\x00any bytes\n", **fields: Any) -> UnstoredImage:
    checked = CheckedImage(data, FORMATS["png"], 64, 48, 1, True, "3OcRJYB4d3h/iIeHeEh3eIhw+j2w")
    return replace(
        UnstoredImage("generated/2026/11/one.png", DrawnImage(checked, "model-ü", 7), NOW), **fields
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the directory of the files."""
    return tmp_path / "state" / "unstored"


@pytest.fixture
def unstored(directory: Path) -> UnstoredImages:
    """Return the images with the default limits."""
    return UnstoredImages(directory)


def _files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_images_are_found_by_another_process_until_they_are_removed(
    unstored: UnstoredImages, directory: Path
) -> None:
    first, third = _image(), _image(noise(1), key="another.png")
    unstored.write(REQUEST, 0, first)
    unstored.write(REQUEST, 2, third)
    unstored.write(OTHER, 0, third)
    assert UnstoredImages(directory).read(REQUEST, 4) == {0: first, 2: third}
    unstored.remove(REQUEST, 4)
    assert UnstoredImages(directory).read(REQUEST, 4) == {}
    assert unstored.read(OTHER, 1) == {0: third}
    assert _files(directory) == [f"{OTHER}.0"]


def test_an_image_that_an_older_version_kept_is_found_without_its_thumbhash(
    unstored: UnstoredImages, directory: Path
) -> None:
    unstored.write(REQUEST, 0, _image())
    path = directory / f"{REQUEST}.0"
    header, _, data = path.read_bytes().partition(b"\n")
    fields = json.loads(header)
    del fields["has_alpha"], fields["thumbhash"]
    path.write_bytes(json.dumps(fields).encode() + b"\n" + data)
    found = unstored.read(REQUEST, 1)[0]
    assert found.key == _image().key
    assert (found.drawn.checked.data, found.drawn.checked.thumbhash) == (data, "")


def test_only_the_owner_can_read_a_file(unstored: UnstoredImages, directory: Path) -> None:
    before = os.umask(0)
    try:
        unstored.write(REQUEST, 0, _image())
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (directory, directory / f"{REQUEST}.0")]
    assert modes == [0o700, 0o600]


def test_the_file_and_its_directory_are_synced(
    unstored: UnstoredImages, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def noted(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), _files(directory)))

    monkeypatch.setattr(os, "fsync", noted)
    unstored.write(REQUEST, 0, _image())
    (file, before), (parent, after) = synced
    assert [file.name] == before
    assert (parent, after) == (directory, [f"{REQUEST}.0"])


def test_the_oldest_images_are_removed_if_there_are_too_many(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unstored = UnstoredImages(directory, max_files=3)
    for number in range(5):
        unstored.write(REQUEST, number, _image())
        os.utime(directory / f"{REQUEST}.{number}", (time.time() - 100 + number,) * 2)
    assert sorted(unstored.read(REQUEST, 5)) == [2, 3, 4]
    assert "1 generated images that were never stored were removed from STATE_DIR" in caplog.text


def test_several_writers_together_stay_within_the_size_limit(directory: Path) -> None:
    most, data = 10 * 8192, bytes(7000)
    instances = [UnstoredImages(directory, max_bytes=most) for _ in range(4)]
    totals = []

    def keep(number: int) -> None:
        instances[number % 4].write(REQUEST, number, _image(data))
        sizes = []
        for path in directory.iterdir():
            try:
                sizes.append(-(-path.stat().st_size // 4096) * 4096)
            except FileNotFoundError:
                continue
        totals.append(sum(sizes))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, range(60)))
    assert len(instances[0].read(REQUEST, 60)) == 10
    assert max(totals) <= most


def test_an_image_larger_than_the_limit_does_not_remove_others(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unstored = UnstoredImages(directory, max_bytes=8192)
    unstored.write(REQUEST, 0, _image())
    unstored.write(REQUEST, 1, _image(bytes(9000)))
    assert list(unstored.read(REQUEST, 2)) == [0]
    assert "can't be kept in STATE_DIR" in caplog.text


@pytest.mark.parametrize("away", [-86_500, 86_500], ids=["past", "future"])
def test_a_file_more_than_a_day_old_or_in_the_future_is_removed(
    unstored: UnstoredImages, directory: Path, away: int
) -> None:
    unstored.write(REQUEST, 0, _image())
    (directory / "left-by-a-killed-process.tmp").write_bytes(b"half")
    for path in directory.iterdir():
        os.utime(path, (time.time() + away,) * 2)
    unstored.write(OTHER, 2, _image())
    os.utime(directory / f"{OTHER}.2", (time.time() - 86_300,) * 2)
    (directory / "left-by-another.tmp").write_bytes(b"half")
    os.utime(directory / "left-by-another.tmp", (time.time() + away,) * 2)
    assert unstored.read(REQUEST, 1) == {}
    (directory / "a-directory").mkdir()
    unstored.write(OTHER, 0, _image())
    unstored.write(OTHER, 1, _image())
    assert _files(directory) == ["a-directory", *(f"{OTHER}.{number}" for number in range(3))]


def test_a_directory_that_cannot_be_synced_is_not_an_error(
    unstored: UnstoredImages, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.fsync

    def refuse_directories(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_directories)
    unstored.write(REQUEST, 0, _image())
    assert list(unstored.read(REQUEST, 1)) == [0]
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
def test_a_damaged_file_is_ignored(
    unstored: UnstoredImages,
    directory: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[bytes], bytes],
) -> None:
    unstored.write(REQUEST, 0, _image())
    path = directory / f"{REQUEST}.0"
    path.write_bytes(spoil(path.read_bytes()))
    assert unstored.read(REQUEST, 1) == {}
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["open", "truncate", "fsync"])
def test_a_write_error_is_logged_and_leaves_no_file(
    unstored: UnstoredImages,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
    error: int,
) -> None:
    unstored.write(OTHER, 0, _image())
    real = getattr(os, call)

    def fail(target: Any, *args: Any, **options: Any) -> Any:
        if call == "open" and not str(target).endswith(".tmp"):
            return real(target, *args, **options)
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, call, fail)
    unstored.write(REQUEST, 0, _image())
    monkeypatch.undo()
    assert unstored.read(REQUEST, 1) == {}
    assert _files(directory) == [f"{OTHER}.0"]
    assert "A generated image can't be kept in STATE_DIR until it is stored" in caplog.text


def test_a_full_disk_keeps_what_fits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_file_system(tmp_path / "small") as small:
        unstored = UnstoredImages(small / "unstored")
        unstored.write(REQUEST, 0, _image(os.urandom(2_000_000)))
        unstored.write(REQUEST, 1, _image(os.urandom(2_000_000)))
        assert list(unstored.read(REQUEST, 2)) == [0]
        assert _files(small / "unstored") == [f"{REQUEST}.0"]
    assert "No space left on device" in caplog.text


def test_waiting_for_the_lock_of_a_stopped_process_times_out(
    unstored: UnstoredImages,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(unstored_module, "_LOCK_TIMEOUT_SECONDS", 0.05)
    directory.mkdir(parents=True)
    with locked(directory.with_name("unstored.lock")):
        unstored.write(REQUEST, 0, _image())
    assert "another process holds" in caplog.text


def test_a_directory_that_cannot_be_created_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file")
    unstored = UnstoredImages(tmp_path / "state" / "unstored")
    unstored.write(REQUEST, 0, _image())
    assert unstored.read(REQUEST, 1) == {}
    unstored.remove(REQUEST, 1)
    assert "can't be kept in STATE_DIR" in caplog.text


def test_a_seed_that_json_cannot_represent_is_logged(
    unstored: UnstoredImages, caplog: pytest.LogCaptureFixture
) -> None:
    drawn: Any = DrawnImage(_image().drawn.checked, "model", object())  # type: ignore[arg-type]
    unstored.write(REQUEST, 0, _image(drawn=drawn))
    assert "can't be kept in STATE_DIR" in caplog.text


WRITE_UNTIL_KILLED = """
import sys
from pathlib import Path
from app.services.unstored import UnstoredImages
from tests.services.test_unstored import REQUEST, _image

unstored, number = UnstoredImages(Path(sys.argv[1])), 0
while True:
    unstored.write(REQUEST, number, _image(bytes([number % 256]) * 300_000))
    print(number, flush=True)
    number += 1
"""


def test_the_images_of_a_killed_process_are_complete(unstored: UnstoredImages, directory: Path) -> None:
    command = [sys.executable, "-c", WRITE_UNTIL_KILLED, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        while process.stdout.readline() != b"5\n":
            pass
        process.send_signal(signal.SIGKILL)
    found = unstored.read(REQUEST, 1000)
    assert list(found)[:6] == list(range(6))
    for number, image in found.items():
        assert image.drawn.checked.data == bytes([number % 256]) * 300_000


def test_the_documentation_states_the_limit() -> None:
    limit = f"{MAX_BYTES // 1024**2} MiB"
    for name in ("docs/limits.md", "docs/generation.md", "docs/settings.md"):
        assert limit in (ROOT / name).read_text(encoding="utf-8"), name
