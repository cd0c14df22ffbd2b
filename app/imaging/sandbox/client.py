"""The worker's side: sends images to the decoder host, and checks every field of what comes back."""

import atexit
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from app.core.errors import AppError, Busy, UndecodableImage
from app.core.system import usable_cores
from app.imaging.check import CheckedImage
from app.imaging.sandbox.confinement import decoding_bounds, unlimitable
from app.imaging.sandbox.messages import (
    anonymous_file,
    checked_in,
    contents,
    fields_of,
    job_line,
    most_stored,
    refusal_in,
)
from app.imaging.survey import ImageLimits

_log = logging.getLogger(__name__)

_SCRIPT = Path(__file__).with_name("__main__.py")

_KEPT = ("LD_LIBRARY_PATH", "TMPDIR")
"""Environment variables passed to the host: where libraries are, and where to put files without memfd."""

_CORES = ",".join(map(str, usable_cores()))
"""The cores that the program was started on. `gunicorn.conf.py` pins each worker to one of them after this
module is loaded; a host pinned there too would slow its worker's hits down while other cores are idle."""

_MEMORY = {"MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Settings of glibc's malloc. Each further heap would reserve 64 MiB of the address space (mallopt(3)), which
is limited. Huge pages (https://sourceware.org/glibc/manual/latest/html_node/Memory-Allocation-Tunables.html)
save most of the cost of a child's page faults: 20 ms of CPU for 12 megapixels.
"""

_GRACE = 10.0
"""Seconds after the child's wall-clock limit at which the host counts as stuck."""

_SUBMIT_SECONDS = 5.0
_TRIES = 2
_MOST_TO_END = 1.0
"""Seconds that a host which is ending may take to close its socket, once it has closed that of a job."""
_LONGEST_ANSWER = 1 << 14

_TOO_MUCH = "The image takes more time or memory to decode than one of its size may."
_BOUNDS: dict[int, str] = {
    signal.SIGXCPU: "CPU time",
    signal.SIGALRM: "time by the clock",
    signal.SIGXFSZ: "the size of what is stored",
}


class HostLost(Exception):
    """The host ended while it had work, or does not accept a job."""


class _Host:
    """A running decoder host, with the socket over which it gets its jobs."""

    def __init__(self, script: Path) -> None:
        environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
        options = ["-I", *(["-B"] if sys.dont_write_bytecode else [])]
        places = [str(Path(place).absolute()) for place in sys.path]
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            try:
                self.pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, *options, str(script), _CORES, *places],
                    environ | _MEMORY,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    ],
                )
            except OSError:
                self._control.close()
                raise
        self._control.settimeout(_SUBMIT_SECONDS)

    def submit(self, job: socket.socket) -> None:
        """Send the host a job's socket. Raises HostLost."""
        try:
            with self._lock:
                socket.send_fds(self._control, [b"j"], [job.fileno()])
        except OSError as exc:
            raise HostLost(f"the decoder host takes no job: {exc}") from exc

    def has_ended(self) -> bool:
        """If it has ended, or is about to: the sockets of its jobs close a moment before or after its own."""
        with self._lock:
            if self._control.fileno() < 0:
                return True
            control = self._control.dup()
        with control:
            poll = select.poll()
            poll.register(control, 0)  # which tells that the other end is closed, and nothing else
            return bool(poll.poll(1000 * _MOST_TO_END))

    def leave(self) -> None:
        """Close this process's end of the socket; the host exits once no process has it open."""
        self._control.close()

    def end(self) -> None:
        """Kill the host, and with it its children, and wait until it has ended."""
        with self._lock:
            self._control.close()
        with suppress(ChildProcessError):  # somebody else has waited for it
            if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)


class Sandbox:
    """Checks images in child processes of one host, which the first image starts. Safe for threads.

    `script` is the file that the host runs.
    """

    def __init__(self, script: Path = _SCRIPT) -> None:
        self._script = script
        self._host: _Host | None = None
        self._lock = threading.Lock()

    def check(self, data: bytes, limits: ImageLimits) -> CheckedImage:
        """Do what `app.imaging.check_image` does, in a child process with limits.

        Raises UnsupportedImage, UndecodableImage (also for an image that exceeds the limits or crashes its
        decoder), TooManyPixels, and Busy if no child can be started.
        """
        try:
            return self._check(data, limits)
        except OSError as exc:
            _log.error("No process to decode an image in: %s", exc)
            raise Busy(detail=f"no process to decode in: {exc}") from exc

    @property
    def host_pid(self) -> int:
        """Return the process id of the host, 0 if there is none."""
        return self._host.pid if self._host is not None else 0

    def close(self) -> None:
        """End the host; the next image starts another."""
        with self._lock:
            host, self._host = self._host, None
        if host is not None:
            host.end()

    def forget(self) -> None:
        """Forget the host in a forked process: it belongs to the parent, and each process needs its own."""
        self._lock = threading.Lock()
        host, self._host = self._host, None
        if host is not None:
            host.leave()

    def _check(self, data: bytes, limits: ImageLimits) -> CheckedImage:
        reasons: list[str] = []
        while len(reasons) < _TRIES:
            host = self._living()
            try:
                return _Job(data, limits).run(host)
            except HostLost as exc:
                _log.warning("The decoder host is started again: %s", exc)
                self._drop(host)
                reasons.append(str(exc))
            except TimeoutError:
                self._drop(host)
                raise
        raise Busy(detail=f"the decoder host was lost: {'; '.join(reasons)}")

    def _living(self) -> _Host:
        with self._lock:
            if self._host is None:
                if self._script == _SCRIPT and unlimitable():
                    _log.warning(
                        "The system refuses setrlimit(2) for %s: what one image may take is not limited so.",
                        ", ".join(unlimitable()),
                    )
                self._host = _Host(self._script)
            return self._host

    def _drop(self, host: _Host) -> None:
        """End the host, once, however many threads find that it is lost."""
        with self._lock:
            its_last = self._host is host
            if its_last:
                self._host = None
        if its_last:
            host.end()


class _Job:
    """The check of one image in a child."""

    def __init__(self, data: bytes, limits: ImageLimits) -> None:
        self._data = data
        self._limits = limits
        self._most = most_stored(len(data), limits.max_pixels)
        self._deadline = time.monotonic() + decoding_bounds(len(data), limits.max_pixels).wall + _GRACE

    def run(self, host: _Host) -> CheckedImage:
        """Return what `host` finds. Raises HostLost, and what `Sandbox.check` does."""
        with ExitStack() as files:
            image = anonymous_file(self._data)
            files.callback(os.close, image)
            result = anonymous_file()
            files.callback(os.close, result)
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    # The child sends no files: few may be in flight for an unprivileged user (unix(7)).
                    socket.send_fds(ours, [job_line(self._limits)], [image, result])
                    host.submit(theirs)
                lines = self._lines(ours)
            return self._outcome(lines, result, host)

    def _lines(self, job: socket.socket) -> list[bytes]:
        """Return the lines received until both child and host have closed their ends."""
        received = b""
        while len(received) <= _LONGEST_ANSWER:
            job.settimeout(max(0.001, self._deadline - time.monotonic()))
            try:
                piece = job.recv(_LONGEST_ANSWER)
            except ConnectionError:
                break
            if not piece:
                break
            received += piece
        return received.splitlines()

    def _outcome(self, lines: list[bytes], result: int, host: _Host) -> CheckedImage:
        try:
            answers = [fields_of(line) for line in lines]
            if not answers or not answers[-1].keys() & {"status", "unstarted"}:
                if host.has_ended():
                    raise HostLost("the decoder host ended while it had work")
                # A child has the same socket, and may close it for both or answer without end.
                raise ValueError("no word of how the child ended")
            if "unstarted" in answers[-1]:
                raise OSError(str(answers[-1]["unstarted"]))
            code = os.waitstatus_to_exitcode(int(answers[-1]["status"]))
            if code or len(answers) != 2:
                raise _broken(code, answers[-1])
            if "refused" in answers[0]:
                raise _refusal(answers[0])
            data = contents(result, self._most) if answers[0].get("changed") else self._data
            return checked_in(answers[0], data, self._limits)
        except (ValueError, TypeError, KeyError) as exc:
            _log.error("A decoder's answer is invalid, as if an image had taken it over: %r", exc)
            raise UndecodableImage(detail=f"the decoder's answer: {exc!r}") from exc


def _refusal(answer: dict[str, Any]) -> AppError:
    error = refusal_in(answer)
    if answer.get("memory") is True:
        _log.warning("A decoder was stopped by its bound on memory: %s", error.detail)
        return UndecodableImage(_TOO_MUCH, detail=error.detail)
    return error


def _broken(code: int, ended: dict[str, Any]) -> AppError:
    """Return the error for an image whose child crashed or was stopped; `code` is as in `subprocess`."""
    took = f"after {ended.get('cpu')} s of CPU time, with {ended.get('memory')} bytes"
    if -code in _BOUNDS:
        _log.warning("A decoder was stopped by its bound on %s, %s", _BOUNDS[-code], took)
        return UndecodableImage(_TOO_MUCH, detail=f"bound on {_BOUNDS[-code]}, {took}")
    how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"status {code}"
    _log.error("A decoder ended with %s, %s", how, took)
    return UndecodableImage(detail=f"the decoder ended with {how}, {took}")


SHARED = Sandbox()
"""One host for each process, however many applications it has."""

check_in_sandbox = SHARED.check

os.register_at_fork(after_in_child=SHARED.forget)
atexit.register(SHARED.close)
