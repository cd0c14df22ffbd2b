"""Which files of a directory are found."""

import os
from pathlib import Path

import pytest

from app.services.bulk import Outcome, Result, Tally, find_files


def test_regular_files_in_order_and_a_reason_for_every_other(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for path in ("b.png", "a/2.png", "a/1.png", ".hidden", ".git/x.png", "a.d/z/deep.png"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    (tmp_path / "outside.png").write_bytes(b"")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "inside.png").symlink_to(root / "b.png")
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "dangling").symlink_to(root / "no such file")
    os.mkfifo(root / "pipe.png")
    tally = Tally()
    assert find_files(root, tally) == ["b.png", "a/1.png", "a/2.png", "a.d/z/deep.png"]
    assert sorted((r.name, r.outcome, r.reason) for r in tally.remarks) == [
        (".git", "skipped", "hidden"),
        (".hidden", "skipped", "hidden"),
        ("dangling", "skipped", "a symbolic link"),
        ("inside.png", "skipped", "a symbolic link"),
        ("link.png", "skipped", "a symbolic link"),
        ("loop", "skipped", "a symbolic link"),
        ("pipe.png", "skipped", "a special file"),
    ]


def test_the_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert find_files(tmp_path / "link", Tally()) == ["a.png"]


def test_a_directory_that_cant_be_read_counts_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refusing(path: str) -> object:  # root may read everything, so chmod would not do
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    tally = Tally()
    assert find_files(tmp_path, tally) == []
    assert tally.remarks == [Result("closed", Outcome.FAILED, "Permission denied")]
