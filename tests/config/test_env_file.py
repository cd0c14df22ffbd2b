"""Which file settings are read from, and which one is refused."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import env_file as settings_file
from app.config.env_file import (
    display_name,
    load_settings_file,
    restart_flask_without_dotenv,
    unload_settings_file,
)
from app.core.errors import ConfigError

SECRET = "sEcReT-sEcReT-sEcReT"
NAME = "SETTINGS_FILE_TEST"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working tree without a file; what tests and the file set is gone after each."""
    for name in (NAME, settings_file._SET_BY_FILE, settings_file._EXPORTED_EMPTY):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.delenv("ENV_FILE", raising=False)
    directory = tmp_path / "tree"
    directory.mkdir()
    monkeypatch.setattr(settings_file, "PROJECT_ROOT", directory)
    return directory


def _write(path: Path, mode: int = 0o600) -> Path:
    path.write_text(f"{NAME}={SECRET}\n", encoding="utf-8")
    path.chmod(mode)
    return path


def test_without_a_file_none_is_read(tree: Path) -> None:
    assert load_settings_file() == "none"


@pytest.mark.parametrize("kind", ["directory", "dangling"])
def test_what_is_no_file_is_none(tree: Path, kind: str) -> None:
    if kind == "directory":
        (tree / ".env").mkdir()
    else:
        (tree / ".env").symlink_to("nowhere")
    assert load_settings_file() == "none"


def test_the_environment_goes_first(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tree / ".env")
    monkeypatch.setenv(NAME, "from the shell")
    assert (load_settings_file(), os.environ[NAME]) == (".env", "from the shell")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o644])
def test_the_trees_own_is_read(tree: Path, mode: int) -> None:
    _write(tree / ".env", mode)
    assert (load_settings_file(), os.environ[NAME]) == (".env", SECRET)


def test_a_file_that_is_named_is_read_instead(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / ".env").write_text(f"{NAME}=own\n", encoding="utf-8")
    monkeypatch.setenv("ENV_FILE", str(_write(tmp_path / "named")))
    assert (load_settings_file(), os.environ[NAME]) == (str(tmp_path / "named"), SECRET)


def test_none_can_be_asked_for(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tree / ".env")
    monkeypatch.setenv("ENV_FILE", os.devnull)
    assert (load_settings_file(), NAME in os.environ) == ("none", False)


def _refused(*named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings_file()
    for text in named:
        assert text in str(refused.value)
    assert SECRET not in str(refused.value)
    assert NAME not in os.environ


@pytest.mark.parametrize("content", [None, "directory", b"\xff"])
def test_a_named_file_that_can_not_be_read_is_an_error(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    path = tmp_path / "named"
    if content == "directory":
        path.mkdir()
    elif content:
        path.write_bytes(content)
    monkeypatch.setenv("ENV_FILE", str(path))
    _refused(str(path))


def test_the_file_names_no_other(tree: Path) -> None:
    """Or the workers, to which the environment is handed down, would read another one than gunicorn has."""
    (tree / ".env").write_text("ENV_FILE=/tmp/other\n", encoding="utf-8")
    _refused(".env must not set ENV_FILE")


@pytest.fixture
def exchangeable(tmp_path: Path) -> Iterator[Path]:
    """A directory that everybody may write to, as long as the test lasts."""
    directory = tmp_path / "public"
    directory.mkdir()
    directory.chmod(0o777)
    yield directory
    directory.chmod(0o700)


def test_what_others_may_write_is_refused(
    tree: Path, exchangeable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file itself, or its place."""
    _write(tree / ".env", 0o602)
    _refused("Everybody may write to .env", "chmod o-w .env")
    (tree / ".env").unlink()
    (tree / ".env").symlink_to(_write(exchangeable / "target"))
    _refused("Everybody may exchange files in", f"chmod o-w {exchangeable}")
    monkeypatch.setenv("ENV_FILE", str(exchangeable / "target"))
    _refused("Everybody may exchange files in", str(exchangeable))
    exchangeable.chmod(0o777 | stat.S_ISVTX)
    assert load_settings_file() == str(exchangeable / "target")


@pytest.mark.parametrize("whose", ["link", "file"])
def test_another_users_file_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    path = _write(tree / ".env")
    real = path.stat()
    other = os.stat_result([*real[:4], 54321, *real[5:]])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", lambda _: other if whose == "link" else real)
        patch.setattr(os, "fstat", lambda _: other if whose == "file" else real)
        _refused(".env belongs to another user (uid 54321)")


def test_names(tree: Path) -> None:
    assert [display_name(None), display_name(tree / ".env"), display_name(Path("/etc/x.env"))] == [
        "none",
        ".env",
        "/etc/x.env",
    ]


@pytest.mark.parametrize("whose", ["own", "other", "named"])
def test_if_flask_can_not_be_started_again_it_stops(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """On systems that do not tell what a process was started with; our own file is no reason to."""
    monkeypatch.setattr(settings_file, "_INITIAL_ENVIRONMENT", tmp_path / "missing")
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    monkeypatch.delenv("FLASK_SKIP_DOTENV", raising=False)
    monkeypatch.chdir(tree)
    _write((tmp_path if whose == "other" else tree) / ".env")
    if whose == "own":
        restart_flask_without_dotenv()
        return
    if whose == "named":
        monkeypatch.setenv("ENV_FILE", str(tree / ".env"))
    with pytest.raises(ConfigError, match="FLASK_SKIP_DOTENV=1"):
        restart_flask_without_dotenv()
    monkeypatch.setenv("FLASK_SKIP_DOTENV", "1")
    restart_flask_without_dotenv()


def test_what_was_exported_empty_stays_so_each_time_the_file_is_read(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries must not see an empty AWS_PROFILE, and the file must not fill it at a reload."""
    (tree / ".env").write_text("AWS_PROFILE=of-the-file\n", encoding="utf-8")
    monkeypatch.setenv("AWS_PROFILE", "")
    for _ in range(3):
        load_settings_file()
        assert "AWS_PROFILE" not in os.environ
    unload_settings_file()
    assert os.environ["AWS_PROFILE"] == ""


def test_a_name_with_a_space_does_not_stand_for_two(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / ".env").write_text(f"'{NAME} PATH'=1\n", encoding="utf-8")
    monkeypatch.setenv(NAME, "mine")
    load_settings_file()
    unload_settings_file()
    assert (os.environ[NAME], "PATH" in os.environ, f"{NAME} PATH" in os.environ) == ("mine", True, False)


def test_a_name_that_can_not_be_is_told(tree: Path) -> None:
    (tree / ".env").write_text(f"{NAME}=1\n'A={SECRET}'=1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^\.env sets a variable whose name") as caught:
        load_settings_file()
    assert SECRET not in str(caught.value)
    unload_settings_file()
    assert NAME not in os.environ
