"""Tests of which `.env` the processes read, in a copy of the checkout with other files around it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.server.running import ROOT
from tests.waiting import wait_until

BIN = Path(sys.executable).parent
FLASK = str(BIN / "flask")
PYTHON_FLASK = [sys.executable, "-m", "flask"]

HOSTILE = (
    "S3_BUCKET=evil-bucket\nAWS_ENDPOINT_URL_S3=http://127.0.0.1:9\nWEB_CONCURRENCY=nonsense\nFLASK_DEBUG=1\n"
)
"""If any of these were read, the server would not start or the doctor would report it."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the server into a directory. Its parent directory has a hostile `.env` and `.flaskenv`."""
    directory = tmp_path / "shared" / "checkout"
    directory.mkdir(parents=True)
    for package in ("app", "painter"):
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("wsgi.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, directory)
    for name in (".env", ".flaskenv"):
        (directory.parent / name).write_text(HOSTILE, encoding="utf-8")
    return directory


def _environ(checkout: Path, **settings: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FLASK_"))}
    places = {
        name: str(checkout.parent.parent / name) for name in ("CACHE_DIR", "LOCAL_STORE_DIR", "STATE_DIR")
    }
    ours.pop("ENV_FILE", None)
    return {**ours, **places, "PYTHONDONTWRITEBYTECODE": "1", **settings}


def _run(checkout: Path, command: list[str], directory: Path | None = None, **settings: str) -> str:
    """Run the command and return its output. The command must succeed."""
    done = subprocess.run(
        command,
        cwd=directory or checkout,
        env=_environ(checkout, **settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _doctor(text: str) -> str:
    """Return the doctor's findings about the settings file, on one line."""
    (found,) = re.findall(r"env-file-mode +(.*(?:\n {20,}.*)*)", text)
    return " ".join(str(found).split())


@pytest.fixture
def started(checkout: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Return a list. Servers that a test adds to it are stopped after the test."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.send_signal(signal.SIGQUIT)
        process.wait(60)


def _start(checkout: Path, started: list[subprocess.Popen[bytes]], **settings: str) -> str:
    """Start gunicorn. Return its log up to the moment when it is ready or has exited."""
    log = checkout.parent.parent / "log"
    with log.open("wb") as output:
        environ = _environ(checkout, **settings)
        command = [str(BIN / "gunicorn"), "wsgi:app"]
        started.append(subprocess.Popen(command, cwd=checkout, env=environ, stdout=output, stderr=output))
    wait_until(lambda: "open http" in log.read_text() or started[-1].poll() is not None, seconds=90)
    return log.read_text()


def test_settings_files_of_parent_directories_are_not_read(
    checkout: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    port = free_port()
    (checkout.parent / ".env").write_text(f"{HOSTILE}PORT={port}\n", encoding="utf-8")
    output = _start(checkout, started, PORT="0")
    assert "Settings file: none" in output
    assert "open http" in output
    shown = _run(checkout, [sys.executable, "-c", "import wsgi, os; print(os.environ.get('S3_BUCKET'))"])
    assert shown == "None\n"


@pytest.mark.parametrize("command", [[FLASK], PYTHON_FLASK], ids=["flask", "python -m flask"])
def test_flask_commands_do_not_read_settings_files_of_parent_directories(
    checkout: Path, command: list[str]
) -> None:
    """Flask would read them before it loads the application."""
    assert "key" in _run(checkout, [*command, "keys", "new"])
    output = _run(checkout, [*command, "bucket", "doctor"], HOME=str(checkout), API_KEYS="a" * 32)
    assert _doctor(output) == "does not apply: no settings file is read (.env or ENV_FILE)"
    assert "evil-bucket" not in output


def test_the_flask_command_that_make_installs_runs_no_other_application(checkout: Path) -> None:
    """The module that `FLASK_APP` names would run before any of our code."""
    (checkout.parent / "evil.py").write_text("print('evil-bucket')\n", encoding="utf-8")
    (checkout.parent / ".env").write_text(f"FLASK_APP={checkout.parent}/evil.py\n", encoding="utf-8")
    venv = checkout.parent.parent / "venv"
    (venv / "bin").mkdir(parents=True)
    for name, text in (("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n'), ("flask", "")):
        (venv / "bin" / name).write_text(text, encoding="utf-8")
        (venv / "bin" / name).chmod(0o755)
    install = ["make", "-s", f"VENV={os.path.relpath(venv, ROOT)}", "--eval", "own: ; $(OWN_FLASK)", "own"]
    subprocess.run(install, cwd=ROOT, check=True)
    command = [str(venv / "bin" / "flask"), "keys", "new", "--name", "web"]
    assert "evil-bucket" not in _run(checkout, command)
    hint = f"Run flask in the directory of S3 Image Server to see its commands: cd {ROOT}\n"
    assert hint in _help(command[0], venv).stderr
    here = _help(command[0], ROOT)
    assert hint not in here.stderr
    assert "Set up and check (doctor) the S3 bucket, and estimate its cost." in here.stdout


def _help(flask: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "ENV_FILE": os.devnull}
    return subprocess.run(
        [flask, "--help"], cwd=directory, env=environ, capture_output=True, text=True, check=True, timeout=60
    )


def test_in_a_different_directory_flask_reads_the_file_of_the_checkout(checkout: Path) -> None:
    (checkout / ".env").write_text("S3_BUCKET=our-bucket\n", encoding="utf-8")
    (checkout / ".env").chmod(0o600)
    elsewhere = checkout.parent / "elsewhere"
    elsewhere.mkdir()
    arguments = ["--app", str(checkout / "wsgi.py"), "bucket", "iam-policy", "--mode", "private"]
    assert "arn:aws:s3:::our-bucket" in _run(checkout, [FLASK, *arguments], elsewhere, AWS_REGION="us-east-1")


def test_the_file_of_the_checkout_is_read_and_named(
    checkout: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    port = free_port()
    (checkout / ".env").write_text(f"PORT={port}\nAPI_KEYS={'k' * 32}\n", encoding="utf-8")
    (checkout / ".env").chmod(0o600)
    output = _start(checkout, started)
    assert "Settings file: .env\n" in output
    assert f":{port}/" in output
    assert "k" * 32 not in output
    doctor = _run(checkout, [FLASK, "bucket", "doctor"])
    assert _doctor(doctor) == "Settings are read from .env, which only its owner can read."


def test_the_file_that_env_file_names_is_read(checkout: Path, started: list[subprocess.Popen[bytes]]) -> None:
    (checkout / ".env").write_text("PORT=nonsense\nS3_BUCKET=not-this-one\n", encoding="utf-8")
    named, port = checkout.parent.parent / "named.env", free_port()
    named.write_text(f"PORT={port}\nAPI_KEYS={'k' * 32}\n", encoding="utf-8")
    named.chmod(0o600)
    output = _start(checkout, started, ENV_FILE=str(named))
    assert f"Settings file: {named}\n" in output
    assert f":{port}/" in output
    doctor = _run(checkout, [FLASK, "bucket", "doctor"], ENV_FILE=str(named))
    assert "Settings are read from" in _doctor(doctor)
    assert "not-this-one" not in doctor


def test_mistyped_names_are_reported_at_startup_and_by_the_doctor(
    checkout: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    (checkout / ".env").write_text(f"API_KEY={'k' * 32}\nlog_level=info\nNONSENSE=1\n", encoding="utf-8")
    (checkout / ".env").chmod(0o600)
    port = str(free_port())
    output = _start(checkout, started, PORT=port, TRUSTED_PROXY="1", LOG_LEVEL="info", CACHE_TTL="5m")
    doctor = " ".join(_run(checkout, [FLASK, "bucket", "doctor"], TRUSTED_PROXY="1").split())
    for text in (output, doctor[doctor.index("setting-names") :]):
        assert "Line 1 of .env: API_KEY is not a setting. Did you mean API_KEYS?" in text
        assert "Line 2 of .env: log_level is not a setting. Did you mean LOG_LEVEL?" in text
        assert "Line 3 of .env: NONSENSE is not a setting." in text
        assert (
            "The environment variable TRUSTED_PROXY is not a setting. Did you mean TRUSTED_PROXIES?" in text
        )
        assert "k" * 32 not in text
    assert output.count("TRUSTED_PROXY ") == 1
    assert "warning" in doctor[: doctor.index("setting-names")].split()[-1]


@pytest.mark.parametrize("data", [b"API_KEYS=a\n# M\xfcller\n", "API_KEYS=a\n".encode("utf-16")])
def test_a_file_that_is_not_text_is_reported_with_the_line(checkout: Path, data: bytes) -> None:
    (checkout / ".env").write_bytes(data)
    (checkout / ".env").chmod(0o600)
    for command in ([str(BIN / "gunicorn"), "wsgi:app"], [FLASK, "keys", "new"]):
        environ = _environ(checkout, FLASK_SKIP_DOTENV="1")
        done = subprocess.run(
            command, cwd=checkout, env=environ, capture_output=True, text=True, check=False, timeout=60
        )
        line = 2 if data.startswith(b"API") else 1
        assert done.returncode != 0
        assert (
            f"Line {line} of the settings file .env is not UTF-8 text. Save the file as UTF-8." in done.stderr
        )
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [[str(BIN / "gunicorn"), "wsgi:app"], [FLASK, "keys", "new"]])
@pytest.mark.parametrize("problem", ["missing", "writable"])
def test_a_file_that_can_not_be_trusted_is_an_error(checkout: Path, command: list[str], problem: str) -> None:
    settings = {}
    if problem == "missing":
        settings["ENV_FILE"] = str(checkout / "missing.env")
    else:
        (checkout / ".env").write_text(f"API_KEYS={'k' * 32}\n", encoding="utf-8")
        (checkout / ".env").chmod(0o666)
    done = subprocess.run(
        command,
        cwd=checkout,
        env=_environ(checkout, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert ("missing.env can't be read" if problem == "missing" else "chmod o-w .env") in output
    assert "Traceback" not in output
    assert "k" * 32 not in output
