"""Reloads (SIGHUP). New settings are tried in a separate process first, so mistakes don't stop the server."""

import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

from app.config.env_file import unload_settings_file
from app.server.listeners import problem_with_move

_START_SECONDS = 60.0
"""Maximum time for the application to start with the new settings."""

_MAX_OUTPUT_BYTES = 4000
"""Maximum size of a trial's output in the log. If the output is longer, only its end is logged."""


def guard_reload(server: Any) -> None:
    """Make gunicorn's arbiter reload settings only if they work. If they don't, it logs the reason.

    By itself, gunicorn stops if it can't read the configuration, if a port is in use, or if workers don't
    start. gunicorn has no hook that runs before a reload, so this function replaces the arbiter's signal
    handler.
    """
    reload = server.handle_hup

    def handle_hup() -> None:
        if problem := _try_settings(server):
            server.log.error("Nothing was reloaded. The server continues with its old settings. %s", problem)
            return
        _forget_settings(server.app)
        reload()

    server.handle_hup = handle_hup


def _forget_settings(application: Any) -> None:
    """Remove the current settings from this process, before gunicorn reads settings again.

    Otherwise the variables of the settings file would look like exported variables. With --preload, gunicorn
    would also keep the application that it has imported, which has the old settings.
    """
    unload_settings_file()
    application.callable = None
    sys.modules.pop(str(getattr(application, "app_uri", "")).partition(":")[0], None)


def _try_settings(server: Any) -> str:
    """Return why a server with the new settings would not start, or "" if it would."""
    try:
        reader, writer = os.pipe()
        child = os.fork()
    except OSError as exc:
        return f"The process that tries the new settings could not be started: {exc.strerror}."
    if not child:
        os.close(reader)
        _run_trial(server, writer)
    os.close(writer)
    output, timed_out = _read_output(reader)
    os.close(reader)
    if timed_out:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if timed_out:
        return f"The application did not start within {_START_SECONDS:.0f} seconds. {output}"
    return (output or "The application did not start.") if status else ""


def _read_output(reader: int) -> tuple[str, bool]:
    """Return a pair: the text from the pipe, as one line, and whether the writer timed out."""
    deadline, data, timed_out = time.monotonic() + _START_SECONDS, b"", True
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not (piece := os.read(reader, _MAX_OUTPUT_BYTES)):
            timed_out = False
            break
        data = (data + piece)[-_MAX_OUTPUT_BYTES:]
    return " ".join(data.decode(errors="replace").split()), timed_out


def _run_trial(server: Any, writer: int) -> NoReturn:
    """Load the settings and the application as a starting server would, and exit. Output goes to `writer`."""
    status = 1
    for number in server.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    for standard in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(writer, standard)
    os.close(writer)
    try:
        _forget_settings(server.app)
        server.app.reload()
        server.app.load()
        if problem := problem_with_move(server, server.app.cfg.address):
            sys.exit(problem)
        status = 0
    except SystemExit as exc:
        sys.stderr.write(f"{exc.code}\n" if isinstance(exc.code, str) else "")
    except BaseException as exc:
        sys.stderr.write(f"{type(exc).__name__}: {exc}\n")
    finally:
        sys.stderr.flush()
        os._exit(status)
