"""Tests of which settings file is loaded, which ones are rejected, and how settings are written."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import env_file
from app.config.env_file import (
    clean_library_variables,
    display_name,
    load_settings_file,
    read_settings,
    restart_flask_without_dotenv,
    unload_settings_file,
    write_settings,
)
from app.core.errors import ConfigError

SECRET = "sEcReT-sEcReT-sEcReT"
NAME = "SETTINGS_FILE_TEST"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project directory without a settings file. Variables that a test sets are removed after it."""
    for name in (NAME, env_file._SET_BY_FILE, env_file._EXPORTED_EMPTY):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.delenv("ENV_FILE", raising=False)
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.setattr(env_file, "PROJECT_ROOT", directory)
    return directory


def _write(path: Path, mode: int = 0o600) -> Path:
    path.write_text(f"{NAME}={SECRET}\n", encoding="utf-8")
    path.chmod(mode)
    return path


def test_without_a_settings_file_nothing_is_loaded(project: Path) -> None:
    assert load_settings_file() == "none"


@pytest.mark.parametrize("kind", ["directory", "dangling link"])
def test_an_env_entry_that_is_not_a_file_is_ignored(project: Path, kind: str) -> None:
    if kind == "directory":
        (project / ".env").mkdir()
    else:
        (project / ".env").symlink_to("nowhere")
    assert load_settings_file() == "none"


def test_exported_variables_override_the_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(project / ".env")
    monkeypatch.setenv(NAME, "from the shell")
    assert (load_settings_file(), os.environ[NAME]) == (".env", "from the shell")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o644])
def test_the_projects_env_file_is_loaded(project: Path, mode: int) -> None:
    _write(project / ".env", mode)
    assert (load_settings_file(), os.environ[NAME]) == (".env", SECRET)


def test_env_file_names_a_different_file(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".env").write_text(f"{NAME}=own\n", encoding="utf-8")
    monkeypatch.setenv("ENV_FILE", str(_write(tmp_path / "named")))
    assert (load_settings_file(), os.environ[NAME]) == (str(tmp_path / "named"), SECRET)


def test_with_dev_null_no_file_is_loaded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(project / ".env")
    monkeypatch.setenv("ENV_FILE", os.devnull)
    assert (load_settings_file(), NAME in os.environ) == ("none", False)


def _assert_refused(*texts: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings_file()
    for text in texts:
        assert text in str(refused.value)
    assert SECRET not in str(refused.value)
    assert NAME not in os.environ


@pytest.mark.parametrize("content", [None, "directory", b"\xff"])
def test_a_named_file_that_can_not_be_read_is_an_error(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    path = tmp_path / "named"
    if content == "directory":
        path.mkdir()
    elif content:
        path.write_bytes(content)
    monkeypatch.setenv("ENV_FILE", str(path))
    _assert_refused(str(path))


def test_a_settings_file_must_not_set_env_file(project: Path) -> None:
    """Workers inherit the environment, and would load a different file than gunicorn."""
    (project / ".env").write_text("ENV_FILE=/tmp/other\n", encoding="utf-8")
    _assert_refused(".env must not set ENV_FILE")


@pytest.fixture
def world_writable(tmp_path: Path) -> Iterator[Path]:
    """A directory that every user can write to until the test ends."""
    directory = tmp_path / "public"
    directory.mkdir()
    directory.chmod(0o777)
    yield directory
    directory.chmod(0o700)


def test_a_file_that_every_user_can_change_or_replace_is_refused(
    project: Path, world_writable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(project / ".env", 0o602)
    _assert_refused("Every user can write to .env", "chmod o-w .env")
    (project / ".env").unlink()
    (project / ".env").symlink_to(_write(world_writable / "target"))
    _assert_refused("Every user can replace files in", f"chmod o-w {world_writable}")
    monkeypatch.setenv("ENV_FILE", str(world_writable / "target"))
    _assert_refused("Every user can replace files in", str(world_writable))
    world_writable.chmod(0o777 | stat.S_ISVTX)
    assert load_settings_file() == str(world_writable / "target")


@pytest.mark.parametrize("whose", ["link", "file"])
def test_another_users_file_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    path = _write(project / ".env")
    real = path.stat()
    other = os.stat_result([*real[:4], 54321, *real[5:]])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", lambda _: other if whose == "link" else real)
        patch.setattr(os, "fstat", lambda _: other if whose == "file" else real)
        _assert_refused(".env belongs to another user (uid 54321)")


def test_a_display_name_is_relative_to_the_project(project: Path) -> None:
    paths = [None, project / ".env", Path("/etc/x.env")]
    assert [display_name(path) for path in paths] == ["none", ".env", "/etc/x.env"]


@pytest.mark.parametrize("whose", ["own", "other", "named"])
def test_flask_stops_if_it_has_read_a_different_file_and_can_not_be_restarted(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """A restart is impossible without /proc. If Flask read the project's file, no restart is needed."""
    monkeypatch.setattr(env_file, "_INITIAL_ENVIRONMENT", tmp_path / "missing")
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    monkeypatch.delenv("FLASK_SKIP_DOTENV", raising=False)
    monkeypatch.chdir(project)
    _write((tmp_path if whose == "other" else project) / ".env")
    if whose == "own":
        restart_flask_without_dotenv()
        return
    if whose == "named":
        monkeypatch.setenv("ENV_FILE", str(project / ".env"))
    with pytest.raises(ConfigError, match="FLASK_SKIP_DOTENV=1"):
        restart_flask_without_dotenv()
    monkeypatch.setenv("FLASK_SKIP_DOTENV", "1")
    restart_flask_without_dotenv()


def test_a_variable_exported_empty_stays_empty_on_every_load(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries must not see an empty AWS_PROFILE, and the file must not set it at a reload."""
    (project / ".env").write_text("AWS_PROFILE=of-the-file\n", encoding="utf-8")
    monkeypatch.setenv("AWS_PROFILE", "")
    for _ in range(3):
        load_settings_file()
        assert "AWS_PROFILE" not in os.environ
    unload_settings_file()
    assert os.environ["AWS_PROFILE"] == ""


def test_a_name_with_a_space_is_one_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".env").write_text(f"'{NAME} PATH'=1\n", encoding="utf-8")
    monkeypatch.setenv(NAME, "mine")
    load_settings_file()
    unload_settings_file()
    assert (os.environ[NAME], "PATH" in os.environ, f"{NAME} PATH" in os.environ) == ("mine", True, False)


def test_a_name_that_is_not_allowed_in_the_environment_is_rejected(project: Path) -> None:
    (project / ".env").write_text(f"{NAME}=1\n'A={SECRET}'=1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^\.env sets a variable whose name") as caught:
        load_settings_file()
    assert SECRET not in str(caught.value)
    unload_settings_file()
    assert NAME not in os.environ


LIBRARY_VARIABLES = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "OPENAI_ORG_ID",
    "HTTPS_PROXY",
    "http_proxy",
]


@pytest.mark.parametrize("text", [f"{SECRET}\n", f"\r\n {SECRET}\t", f"\u00a0{SECRET}\u2028"])
@pytest.mark.parametrize("name", LIBRARY_VARIABLES)
def test_white_space_around_a_library_variable_is_stripped(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(name, text)
    clean_library_variables()
    assert os.environ[name] == SECRET


@pytest.mark.parametrize("control", ["\n", "\r", "\t", "\x01", "\x7f", "\x85", "\u2028"])
@pytest.mark.parametrize("name", [*LIBRARY_VARIABLES, "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ROLE_ARN"])
def test_a_library_variable_with_a_control_character_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, control: str
) -> None:
    monkeypatch.setenv(name, f"{SECRET}{control}{SECRET}")
    with pytest.raises(ConfigError, match=f"^{name}: ") as caught:
        clean_library_variables()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"])
def test_a_variable_sent_in_a_header_must_be_ascii(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Typical mistakes are typographic quotes and zero-width spaces."""
    for odd in ("“", "\u200b", "é", "\udcff"):
        monkeypatch.setenv(name, f"{SECRET}{odd}")
        with pytest.raises(ConfigError, match=name) as caught:
            clean_library_variables()
        assert SECRET not in str(caught.value)


def test_all_unusable_library_variables_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "a\nb")
    with pytest.raises(ConfigError, match=r"^AWS_ACCESS_KEY_ID, AWS_SESSION_TOKEN: "):
        clean_library_variables()


def test_an_empty_aws_variable_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 would use an empty AWS_PROFILE as the name of a profile."""
    monkeypatch.setenv("AWS_PROFILE", " \n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    clean_library_variables()
    assert not {"AWS_PROFILE", "AWS_ENDPOINT_URL"} & set(os.environ)


def test_other_variables_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {
        "OPENAI_CUSTOM_HEADERS": "A: b\nC: d",
        "MY_AWS_KEY": "a\n",
        "AWS_SECRET_ACCESS_KEY": "schlüssel",
    }
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    clean_library_variables()
    assert {name: os.environ[name] for name in others} == others


BEFORE = "# mine\nS3_BUCKET=cats # which\nexport PORT=9000\nEMPTY=\nAWS_SESSION_TOKEN=old\nLAST='a b'"
SPECIAL = 'a/b+c\'d\\e#f $HOME="g"'


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A settings file with `BEFORE`, readable by all users."""
    path = tmp_path / ".env"
    path.write_text(BEFORE, encoding="utf-8")
    path.chmod(0o644)
    return path


def test_writing_settings_keeps_other_lines_and_makes_the_file_private(written: Path) -> None:
    write_settings(written, {"S3_BUCKET": "dogs", "NEW": SPECIAL}, without=("AWS_SESSION_TOKEN", "NOT_THERE"))
    text = written.read_text(encoding="utf-8")
    assert text.startswith("# mine\nS3_BUCKET=dogs\nexport PORT=9000\nEMPTY=\nLAST='a b'\nNEW=")
    assert read_settings(written) == {"S3_BUCKET": "dogs", "PORT": "9000", "LAST": "a b", "NEW": SPECIAL}
    assert written.stat().st_mode & 0o777 == 0o600
    assert list(written.parent.iterdir()) == [written]


def test_writing_settings_creates_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert read_settings(path) == {}
    write_settings(path, {"S3_BUCKET": "dogs"})
    assert path.read_text(encoding="utf-8") == "S3_BUCKET=dogs\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_writing_settings_keeps_a_symbolic_link(written: Path) -> None:
    link = written.with_name("link")
    link.symlink_to(written)
    write_settings(link, {"S3_BUCKET": "dogs"})
    assert link.is_symlink()
    assert read_settings(written)["S3_BUCKET"] == "dogs"


def test_a_failed_write_leaves_the_file_unchanged(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(env_file, "set_key", full)
    with pytest.raises(OSError, match="No space left"):
        write_settings(written, {"S3_BUCKET": "dogs"})
    assert written.read_text(encoding="utf-8") == BEFORE
    assert list(written.parent.iterdir()) == [written]
