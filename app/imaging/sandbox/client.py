"""The worker's side of the sandbox: send images to the decoder host, and validate its reports."""

import atexit
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

from app.core.errors import AppError, Busy, UndecodableImage, VariantFailed
from app.core.object_metadata import ImageInfo
from app.core.system import usable_cores
from app.imaging.check import CheckedImage
from app.imaging.sandbox.confinement import decoding_limits, unsupported_limits
from app.imaging.sandbox.protocol import (
    Job,
    Report,
    decode_checked,
    decode_described,
    decode_made,
    decode_refusal,
    decode_reports,
    encode_job,
    read_all,
    write_all,
)
from app.imaging.survey import ImageLimits
from app.imaging.variants import MadeVariant, VariantRequest

_log = logging.getLogger(__name__)

_HOST_SCRIPT = Path(__file__).with_name("__main__.py")

_INHERITED_VARIABLES = ("LD_LIBRARY_PATH", "TMPDIR")
"""Environment variables that are passed to the host. They say where libraries are, and where to create
temporary files if memfd_create(2) is not available."""

_MALLOC_VARIABLES = {
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432",
}
"""Settings of glibc's malloc.

There is only one heap, because each additional heap would reserve 64 MiB of the limited address space
(mallopt(3)). Huge pages avoid most page faults of a child, which saves 20 ms of CPU time for 12 megapixels
(https://sourceware.org/glibc/manual/latest/html_node/Memory-Allocation-Tunables.html). Memory of up to 32 MiB
is taken from the heap, because a mapping of its own would contain hardly any huge pages.
"""

_CORES = ",".join(map(str, usable_cores()))
"""The CPU cores that this program was allowed to use when it started, separated by commas. `gunicorn.conf.py`
pins each worker to one of them later, after this module is loaded. If the host were pinned to the same core
as its worker, it would slow down the worker's cache hits while other cores are idle."""

_HOST_GRACE_SECONDS = 10.0
"""How many seconds the worker waits beyond the wall-clock limit of a child before it considers the host
stuck."""
_SUBMIT_TIMEOUT_SECONDS = 5.0
_HOST_EXIT_TIMEOUT_SECONDS = 1.0
"""Maximum number of seconds between the moments at which an exiting host closes the socket of a job and its
control socket."""
_MAX_ATTEMPTS = 2
_MAX_REPORT_BYTES = 1 << 14

_Result = TypeVar("_Result")

_LIMIT_SIGNALS: dict[int, str] = {
    signal.SIGXCPU: "CPU time",
    signal.SIGALRM: "wall-clock time",
    signal.SIGXFSZ: "the size of the result",
}
_LIMIT_EXCEEDED = (
    "Decoding this image takes more time or memory than allowed for images of its size."
    " Save it again with a different program, or make it smaller."
)


class _LimitExceeded(UndecodableImage):
    """A child exceeded its limit on CPU time, wall-clock time, memory, or the size of its result."""


class HostLost(Exception):
    """The host exited before it finished a job, or it did not accept the job."""


class Sandbox:
    """Checks images and makes variants in child processes of one host. Thread-safe.

    The host is started when the first image arrives. `script` is the Python file that the host runs.
    """

    def __init__(self, script: Path = _HOST_SCRIPT) -> None:
        self._script = script
        self._host: _Host | None = None
        self._lock = threading.Lock()

    def check(self, data: bytes, limits: ImageLimits) -> CheckedImage:
        """Check an image like `app.imaging.check.check_image`, but in a child process with resource limits.

        Raises what `check_image` raises. Also raises UndecodableImage if the image exceeds the resource
        limits or crashes the decoder, and Busy if no child can be started or the host is stuck.
        """
        job = Job("check", limits)

        def read(report: Report, result: int) -> CheckedImage:
            changed = report.get("changed")
            stored = read_all(result, job.max_result_bytes(len(data))) if changed else data
            return decode_checked(report, stored, limits)

        return self._run(job, data, read)

    def make(self, data: bytes, request: VariantRequest, limits: ImageLimits) -> MadeVariant:
        """Make a variant like `app.imaging.variants.make_variant`, but in a child process.

        Raises what `check` raises, but VariantFailed if the variant exceeds the resource limits.
        """
        job = Job("make", limits, request)

        def read(report: Report, result: int) -> MadeVariant:
            return decode_made(report, read_all(result, job.max_result_bytes(0)), request, limits)

        try:
            return self._run(job, data, read)
        except _LimitExceeded as exc:
            raise VariantFailed(detail=exc.detail) from exc

    def describe(self, data: bytes, limits: ImageLimits) -> ImageInfo:
        """Return the facts about an image like `app.imaging.variants.describe_image`, but in a child process.

        Raises what `check` raises.
        """
        return self._run(Job("describe", limits), data, lambda report, _: decode_described(report, limits))

    def _run(self, job: Job, data: bytes, read: Callable[[Report, int], _Result]) -> _Result:
        """Have a child do a job, and return what `read` returns for the child's report and result file."""
        lost: list[str] = []
        try:
            while len(lost) < _MAX_ATTEMPTS:
                host = self._running_host()
                try:
                    return _RunningJob(job, data).run(host, read)
                except HostLost as exc:
                    _log.warning("Restarting the decoder host: %s", exc)
                    self._discard(host)
                    lost.append(str(exc))
                except TimeoutError:
                    self._discard(host)
                    raise
        except OSError as exc:
            _log.error("No process is available to decode an image: %s", exc)
            raise Busy(detail=f"no process is available to decode the image: {exc}") from exc
        raise Busy(detail=f"the decoder host was lost: {'; '.join(lost)}")

    @property
    def host_pid(self) -> int:
        """Return the process ID of the host, or 0 if none is running."""
        return self._host.pid if self._host is not None else 0

    def close(self) -> None:
        """Kill the host. The next image starts a new one."""
        with self._lock:
            host, self._host = self._host, None
        if host is not None:
            host.kill()

    def forget(self) -> None:
        """Forget the host without killing it. Call this after a fork: the host belongs to the parent."""
        self._lock = threading.Lock()
        host, self._host = self._host, None
        if host is not None:
            host.close_socket()

    def _running_host(self) -> "_Host":
        with self._lock:
            if self._host is None:
                if self._script == _HOST_SCRIPT and unsupported_limits():
                    _log.warning(
                        "The system refuses setrlimit(2) for %s: images are decoded without these limits.",
                        ", ".join(unsupported_limits()),
                    )
                self._host = _Host(self._script)
            return self._host

    def _discard(self, host: "_Host") -> None:
        """Kill a lost host, but only once, even if several threads notice that it is lost."""
        with self._lock:
            is_current = self._host is host
            if is_current:
                self._host = None
        if is_current:
            host.kill()


class _Host:
    """A running decoder host, and the control socket through which the host receives its jobs."""

    def __init__(self, script: Path) -> None:
        environ = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
        options = ["-I", *(["-B"] if sys.dont_write_bytecode else [])]
        import_path = [str(Path(place).absolute()) for place in sys.path]
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            try:
                self.pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, *options, str(script), _CORES, *import_path],
                    environ | _MALLOC_VARIABLES,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    ],
                )
            except OSError:
                self._control.close()
                raise
        self._control.settimeout(_SUBMIT_TIMEOUT_SECONDS)

    def submit(self, job: socket.socket) -> None:
        """Send the socket of a job to the host. Raises HostLost if the host does not accept it."""
        try:
            with self._lock:
                socket.send_fds(self._control, [b"j"], [job.fileno()])
        except OSError as exc:
            raise HostLost(f"the decoder host does not accept a job: {exc}") from exc

    def has_exited(self) -> bool:
        """Return whether the host has exited, waiting briefly for it.

        An exiting host closes the sockets of its jobs and its control socket at about the same time.
        """
        with self._lock:
            if self._control.fileno() < 0:
                return True
            control = self._control.dup()
        with control:
            poll = select.poll()
            poll.register(control, 0)  # reports only when the other end is closed
            return bool(poll.poll(1000 * _HOST_EXIT_TIMEOUT_SECONDS))

    def close_socket(self) -> None:
        """Close our end of the control socket. The host exits once no process has this end open."""
        self._control.close()

    def kill(self) -> None:
        """Kill the host and its children, and wait until the host has ended."""
        with self._lock:
            self._control.close()
        with suppress(ChildProcessError):  # other code has already waited for it
            if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)


class _RunningJob:
    """A job that is done in a child process."""

    def __init__(self, job: Job, data: bytes) -> None:
        self._job = job
        self._data = data
        wall_seconds = decoding_limits(len(data), job.max_pixels).wall_seconds
        self._deadline = time.monotonic() + wall_seconds + _HOST_GRACE_SECONDS

    def run(self, host: _Host, read: Callable[[Report, int], _Result]) -> _Result:
        """Have the job done in a child of the host, and return what `read` returns for its report.

        Raises HostLost if the host exits, OSError if no child can be started, and TimeoutError if the host is
        stuck. Raises UndecodableImage if `read` raises ValueError. Also raises what the job raises.
        """
        with ExitStack() as files:
            image = _anonymous_file(self._data)
            files.callback(os.close, image)
            result = _anonymous_file()
            files.callback(os.close, result)
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    # The worker sends the file for the result, too, so that the child doesn't have to send
                    # a file back: for unprivileged users, the number of descriptors in flight is limited
                    # (unix(7)).
                    socket.send_fds(ours, [encode_job(self._job)], [image, result])
                    host.submit(theirs)
                received = self._receive(ours)
            return _outcome(received, host, lambda report: read(report, result))

    def _receive(self, job: socket.socket) -> bytes:
        """Return the bytes that the child and the host send until both have closed the socket."""
        received = b""
        while len(received) <= _MAX_REPORT_BYTES:
            job.settimeout(max(0.001, self._deadline - time.monotonic()))
            try:
                piece = job.recv(_MAX_REPORT_BYTES)
            except ConnectionError:
                break
            if not piece:
                break
            received += piece
        return received


def _outcome(received: bytes, host: _Host, read: Callable[[Report], _Result]) -> _Result:
    """Return what `read` returns for the child's report, or raise the error that the reports stand for."""
    try:
        reports = decode_reports(received)
        if not reports or not reports[-1].keys() & {"status", "unstarted"}:
            if host.has_exited():
                raise HostLost("the decoder host exited before it finished a job")
            # A hostile child can shut down the socket that it shares with the host, or send endless data.
            raise ValueError("no report of how the child ended")
        if "unstarted" in reports[-1]:
            raise OSError(str(reports[-1]["unstarted"]))
        exit_code = os.waitstatus_to_exitcode(int(reports[-1]["status"]))
        if exit_code or len(reports) != 2:
            raise _child_failure(exit_code, reports[-1])
        if "refused" in reports[0]:
            raise _refusal(reports[0])
        return read(reports[0])
    except (ValueError, TypeError, KeyError) as exc:
        _log.error("A decoder sent an invalid report; an image may have taken control of it: %r", exc)
        raise UndecodableImage(detail=f"the decoder sent an invalid report: {exc!r}") from exc


def _anonymous_file(data: bytes = b"") -> int:
    """Return the descriptor of a new file that contains `data`.

    The file is in memory if the system supports that, and on disk otherwise.
    """
    try:
        descriptor = os.memfd_create("image")
    except (OSError, AttributeError):  # refused, or not Linux
        descriptor = _unlinked_file()
    try:
        write_all(descriptor, data)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _unlinked_file() -> int:
    """Return the descriptor of a new file on disk that has no name.

    `tempfile` is not used, because it imports `random`, which would be seeded again after each fork.
    """
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"s3-image-server-{os.urandom(16).hex()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    path.unlink()
    return descriptor


def _refusal(report: dict[str, Any]) -> AppError:
    error = decode_refusal(report)
    if report.get("memory") is True:
        _log.warning("A decoder exceeded its limit on memory: %s", error.detail)
        return _LimitExceeded(_LIMIT_EXCEEDED, detail=error.detail)
    return error


def _child_failure(exit_code: int, report: dict[str, Any]) -> AppError:
    """Return the error for an image whose child crashed or was stopped.

    If a signal ended the child, `exit_code` is the negative signal number, as in `subprocess`.
    """
    used = f"after {report.get('cpu')} s of CPU time, with {report.get('memory')} bytes of memory"
    if -exit_code in _LIMIT_SIGNALS:
        limit = _LIMIT_SIGNALS[-exit_code]
        _log.warning("A decoder exceeded its limit on %s, %s", limit, used)
        return _LimitExceeded(_LIMIT_EXCEEDED, detail=f"limit on {limit}, {used}")
    how = f"signal {-exit_code} ({signal.strsignal(-exit_code)})" if exit_code < 0 else f"status {exit_code}"
    _log.error("A decoder ended with %s, %s", how, used)
    return UndecodableImage(detail=f"the decoder ended with {how}, {used}")


_SHARED = Sandbox()
"""The sandbox of this process. If the process has several applications, they share its host."""

check_in_sandbox = _SHARED.check
make_in_sandbox = _SHARED.make
describe_in_sandbox = _SHARED.describe

os.register_at_fork(after_in_child=_SHARED.forget)
atexit.register(_SHARED.close)
