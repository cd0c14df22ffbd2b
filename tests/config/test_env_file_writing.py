"""Writing settings into `.env`."""

from pathlib import Path

import pytest

from app.config import env_file
from app.config.env_file import read_settings, write_settings

BEFORE = "# mine\nS3_BUCKET=cats # which\nexport PORT=9000\nEMPTY=\nAWS_SESSION_TOKEN=old\nLAST='a b'"
SECRET = 'a/b+c\'d\\e#f $HOME="g"'


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """A file with settings, readable by all."""
    path = tmp_path / ".env"
    path.write_text(BEFORE, encoding="utf-8")
    path.chmod(0o644)
    return path


def test_other_lines_stay_and_the_file_becomes_private(env: Path) -> None:
    write_settings(env, {"S3_BUCKET": "dogs", "NEW": SECRET}, without=("AWS_SESSION_TOKEN", "NOT_THERE"))
    text = env.read_text(encoding="utf-8")
    assert text.startswith("# mine\nS3_BUCKET=dogs\nexport PORT=9000\nEMPTY=\nLAST='a b'\nNEW=")
    assert read_settings(env) == {"S3_BUCKET": "dogs", "PORT": "9000", "LAST": "a b", "NEW": SECRET}
    assert env.stat().st_mode & 0o777 == 0o600
    assert list(env.parent.iterdir()) == [env]


def test_a_new_file_is_private(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    assert read_settings(env) == {}
    write_settings(env, {"S3_BUCKET": "dogs"})
    assert env.read_text(encoding="utf-8") == "S3_BUCKET=dogs\n"
    assert env.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link(env: Path) -> None:
    link = env.with_name("link")
    link.symlink_to(env)
    write_settings(link, {"S3_BUCKET": "dogs"})
    assert link.is_symlink()
    assert read_settings(env)["S3_BUCKET"] == "dogs"


def test_a_failure_leaves_the_file_as_it_was(env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(env_file, "set_key", full)
    with pytest.raises(OSError, match="No space left"):
        write_settings(env, {"S3_BUCKET": "dogs"})
    assert env.read_text(encoding="utf-8") == BEFORE
    assert list(env.parent.iterdir()) == [env]
