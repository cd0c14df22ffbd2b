"""A decoder host whose children do what the "image" says, as if a hostile image had taken control of them.

`compromised_host.py` starts it. Its time limits are shorter than the real ones, so that tests are fast.
"""

import ctypes
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from app.core.errors import UndecodableImage
from app.core.object_metadata import ImageInfo
from app.imaging.check import CheckedImage, check_image
from app.imaging.sandbox import host, protocol
from app.imaging.survey import ImageLimits
from app.imaging.variants import MadeVariant, VariantRequest, describe_image, make_variant


def _open_descriptors(kind: Callable[[int], bool]) -> list[int]:
    """Return the open descriptors of this kind in the child."""
    found = []
    for descriptor in range(3, 128):
        with suppress(OSError):
            if kind(os.fstat(descriptor).st_mode):
                found.append(descriptor)
    return found


def _send(payload: bytes) -> None:
    """Send `payload` to the worker."""
    (job,) = _open_descriptors(stat.S_ISSOCK)
    os.write(job, payload)


def _crash(payload: bytes) -> NoReturn:
    ctypes.string_at(0)
    raise AssertionError


def _abort(payload: bytes) -> NoReturn:
    os.abort()


def _burn(payload: bytes) -> NoReturn:
    signal.setitimer(signal.ITIMER_REAL, 0)  # on a busy machine, this limit could be reached first
    while True:
        pass


def _wait(payload: bytes) -> NoReturn:
    while True:
        time.sleep(60)


def _take_memory(payload: bytes) -> NoReturn:
    taken = [bytearray(1 << 20) for _ in range(4000)]
    raise AssertionError(len(taken))


def _take_some(payload: bytes) -> NoReturn:
    """Allocate memory that is allowed for decoding 40 million pixels, but not for parsing a container."""
    raise UndecodableImage(detail=f"{len(bytearray(200 << 20))} bytes taken")


def _say(payload: bytes) -> NoReturn:
    _send(payload)
    os._exit(0)


def _write(payload: bytes) -> NoReturn:
    """Write a result, and send a report. The payload begins with the size of the result."""
    size = int.from_bytes(payload[:4], "big")
    result = _open_descriptors(stat.S_ISREG)[-1]
    os.write(result, payload[4 : 4 + size])
    _send(payload[4 + size :])
    os._exit(0)


def _nice(payload: bytes) -> NoReturn:
    """Report the nice value of this process."""
    raise UndecodableImage(detail=str(os.nice(0)))


def _shut(payload: bytes) -> NoReturn:
    """Send a report, and shut down the socket, which the host shares."""
    (job,) = _open_descriptors(stat.S_ISSOCK)
    os.write(job, payload)
    socket.socket(fileno=job).shutdown(socket.SHUT_RDWR)
    _wait(b"")


def _hand_over(payload: bytes) -> NoReturn:
    """Send the worker a pipe from which no bytes ever come."""
    (job,) = _open_descriptors(stat.S_ISSOCK)
    pipe, _ = os.pipe()
    socket.send_fds(socket.socket(fileno=job), [payload], [pipe])
    os._exit(0)


def _fill(payload: bytes) -> NoReturn:
    """Write as much as possible to every writable file, and report the number of bytes."""
    written = 0
    for descriptor in _open_descriptors(stat.S_ISREG):
        with suppress(OSError):
            for _ in range(100):
                written += os.write(descriptor, bytes(1 << 20))
    raise UndecodableImage(detail=str(written))


def _linger(payload: bytes) -> NoReturn:
    """Wait with the wall-clock limit disabled."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    while True:
        time.sleep(60)


def _exit(payload: bytes) -> NoReturn:
    os._exit(7)


def _kill_host(payload: bytes) -> NoReturn:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
    raise AssertionError


def _break_out(payload: bytes) -> NoReturn:
    """Try to read, write, connect, signal and run a program, and report what succeeded."""
    attempts: dict[str, Callable[[], object]] = {
        "read": lambda: os.open(__file__, os.O_RDONLY),
        "write": lambda: os.open(payload, os.O_WRONLY | os.O_CREAT),
        "environment": lambda: os.open(f"/proc/{os.getppid()}/environ", os.O_RDONLY),
        "signal": lambda: os.kill(os.getppid(), 0),
        "execute": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
        "connect": lambda: socket.create_connection(("127.0.0.1", int(Path(payload.decode()).name)), 5),
    }
    if os.geteuid():  # root is always allowed to
        attempts["fork"] = lambda: os.fork() or os._exit(0)
    succeeded = []
    for name, attempt in attempts.items():
        try:
            attempt()
            succeeded.append(name)
        except OSError:
            pass
    raise UndecodableImage(detail=",".join(succeeded))


_ACTIONS: dict[bytes, Callable[[bytes], NoReturn]] = {
    action.__name__.strip("_").encode(): action
    for action in (
        *(_crash, _abort, _burn, _wait, _linger, _take_memory, _take_some, _say, _shut, _hand_over, _fill),
        *(_exit, _kill_host, _break_out, _write, _nice),
    )
}


def _act(data: bytes) -> None:
    action, _, payload = data.partition(b"\0")
    if action in _ACTIONS:
        _ACTIONS[action](payload)


def _check(data: bytes, limits: ImageLimits, *, before_decoding: Callable[[int], None]) -> CheckedImage:
    _act(data)
    return check_image(data, limits, before_decoding=lambda pixels: before_decoding(64 * 64))


def _make(
    data: bytes, request: VariantRequest, limits: ImageLimits, *, before_decoding: Callable[[int], None]
) -> MadeVariant:
    _act(data)
    return make_variant(data, request, limits, before_decoding=before_decoding)


def _describe(data: bytes, limits: ImageLimits, *, before_decoding: Callable[[int], None]) -> ImageInfo:
    _act(data)
    return describe_image(data, limits, before_decoding=before_decoding)


def serve(cores: str) -> NoReturn:
    """Serve as a host with such children."""
    vars(host).update(check_image=_check, make_variant=_make, describe_image=_describe)
    vars(protocol).update(
        _SURVEY_CPU_SECONDS=1,
        _DECODING_CPU_SECONDS=1,
        _WALL_SECONDS=1.0,
        _WALL_SECONDS_PER_CPU_SECOND=2.0,
    )
    host.serve(cores)
