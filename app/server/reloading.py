"""SIGHUP: new settings are tried in a process of their own first, so that a mistake ends no server."""

import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

from app.config.env_file import unload_settings_file
from app.server.listeners import problem_with_move

_SECONDS = 60.0
"""How long the application may take to start with the new settings."""

_LONGEST = 4000
"""Characters of what a trial says that are logged."""


def guard_reload(server: Any) -> None:
    """Have gunicorn's arbiter reload only settings that work, and say why others don't.

    gunicorn itself would end: it takes a configuration that it can't read, a port that is in use, or workers
    that don't start for reasons to stop.
    """
    reload = server.handle_hup

    def handle_hup() -> None:
        if problem := _problem(server):
            server.log.error("Nothing is reloaded, the server goes on with its old settings. %s", problem)
            return
        _forget(server.app)
        reload()

    server.handle_hup = handle_hup


def _forget(application: Any) -> None:
    """Forget what the present settings have left in this process, before gunicorn reads them again.

    It takes the environment that it finds then for the operator's. With --preload it would go on with the
    application that it has imported, whatever the settings are.
    """
    unload_settings_file()
    application.callable = None
    sys.modules.pop(str(getattr(application, "app_uri", "")).partition(":")[0], None)


def _problem(server: Any) -> str:
    """Return what keeps a server with the present settings from starting, or ""."""
    try:
        ours, theirs = os.pipe()
        child = os.fork()
    except OSError as exc:
        return f"There is no process to try the new ones in: {exc.strerror}."
    if not child:
        os.close(ours)
        _try(server, theirs)
    os.close(theirs)
    said, is_late = _read(ours)
    os.close(ours)
    if is_late:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if is_late:
        return f"The application did not start within {_SECONDS:.0f} seconds. {said}"
    return (said or "The application did not start.") if status else ""


def _read(descriptor: int) -> tuple[str, bool]:
    """Return what is written to the pipe, in one line, and whether its writer did not end in time."""
    deadline, data = time.monotonic() + _SECONDS, b""
    while select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not (piece := os.read(descriptor, _LONGEST)):
            break
        data = (data + piece)[-_LONGEST:]
    else:
        return _line(data), True
    return _line(data), False


def _line(data: bytes) -> str:
    return " ".join(data.decode(errors="replace").split())


def _try(server: Any, report: int) -> NoReturn:
    """Load settings and application as a server does that starts, and exit; what is said goes to `report`."""
    status = 1
    for number in server.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    for standard in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(report, standard)
    os.close(report)
    try:
        _forget(server.app)
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
