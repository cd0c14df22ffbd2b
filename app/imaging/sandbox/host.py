"""The decoder host: has the decoders loaded, and forks a child for each image.

A fork takes a millisecond and starts from clean memory; starting Python for each image would take 200.
The host itself never reads a byte of an image. It ends when the worker's end of the control socket closes.

The child that checks one image: confined first, gone afterwards with all its memory.
"""

import gc
import os
import select
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import PIL
from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from app.core.errors import AppError, UndecodableImage
from app.imaging.check import check_image
from app.imaging.sandbox.confinement import (
    Enclosure,
    be_the_first_to_go,
    close_from,
    decoding_bounds,
    die_with_parent,
    hold_to,
    mapped_memory,
    raise_to,
    survey_bounds,
    unlimitable,
)
from app.imaging.sandbox.messages import (
    checked_line,
    contents,
    ended_line,
    limits_in,
    most_stored,
    refused_line,
    unstarted_line,
    write,
)

_MOST_IN_A_LINE = 1 << 16


def run(job: socket.socket, host: int, own_memory: int, enclosure: Enclosure) -> NoReturn:
    """Read the image from `job`, check it within `enclosure`, answer there, and end this process.

    `host` is the process that forked this one, and `own_memory` the bytes that it had mapped then.
    """
    status = 1
    try:
        die_with_parent(host)
        _keep_open(job.fileno(), enclosure.fileno())
        enclosure.shut_in()
        _answer(job, own_memory)
        status = 0
    finally:
        os._exit(status)


def _keep_open(*descriptors: int) -> None:
    """Close all other descriptors inherited from the host, and discard what decoders print."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    before = 2
    for descriptor in sorted(descriptors):
        os.closerange(before + 1, descriptor)
        before = max(before, descriptor)
    close_from(before + 1)


def _answer(job: socket.socket, own_memory: int) -> None:
    line, descriptors, _, _ = socket.recv_fds(job, _MOST_IN_A_LINE, 2)
    limits, (image, result) = limits_in(line), descriptors
    size = os.fstat(image).st_size

    def lift(pixels: int) -> None:
        raise_to(decoding_bounds(size, pixels), own_memory)

    most = decoding_bounds(size, limits.max_pixels)
    hold_to(survey_bounds(size), most, own_memory, most_stored(size, limits.max_pixels))
    try:
        data = contents(image, size)
        checked = check_image(data, limits, before_decoding=lift)
        changed = checked.data != data
        if changed:
            write(result, checked.data)
        job.sendall(checked_line(checked, changed=changed))
    except AppError as error:
        job.sendall(refused_line(error))
    except Exception as exc:
        refusal = UndecodableImage(detail=repr(exc))
        refusal.__cause__ = exc
        job.sendall(refused_line(refusal))


PLUGINS = (
    *(AvifImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin),
    TiffImagePlugin,
)
"""Loaded here for all children: the five formats, and the plugin that reads their EXIF."""

_CODE = (Path(str(os.__file__)).parent, Path(str(PIL.__file__)).parent, Path(__file__).parents[2])
"""Python's own library, Pillow and the package `app`: a child may read them, in case it imports more."""

_NICENESS = 5
"""Below the workers: if all cores are busy, those that serve images get three quarters of them."""
_KIB = 1024


def serve(cores: str) -> NoReturn:
    """Serve the worker at the other end of standard input until it ends; run on these cores."""
    os.setsid()  # Ctrl-C in a terminal is the worker's business: it finishes what it has begun
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    close_from(3)
    unlimitable()  # asked once for all children
    with suppress(OSError):
        os.nice(_NICENESS)
    with suppress(OSError):  # refused, or a core is gone
        if cores:
            os.sched_setaffinity(0, map(int, cores.split(",")))
    with suppress(OSError):
        be_the_first_to_go()
    Image.preinit()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each more would take memory by the frame
    gc.collect()
    gc.freeze()  # children then leave the pages of what is here as they are
    Host(socket.socket(fileno=os.dup(0))).run()


class Host:
    """Starts a child for each socket received over `control`, and reports on it how the child ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._jobs: dict[int, socket.socket] = {}
        self._children: dict[int, int] = {}
        self._memory = mapped_memory()
        self._enclosure = Enclosure(_CODE)
        self._poll = select.poll()

    def run(self) -> NoReturn:
        """Serve until the other end of `control` is closed, then end this process and the children."""
        woken, wake = socket.socketpair()
        for end in (woken, wake):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake.fileno())
        for source in (self._control, woken):
            self._poll.register(source, select.POLLIN)
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == woken.fileno():
                    woken.recv(_KIB)
                    self._reap()
                elif descriptor == self._control.fileno():
                    self._take()
                elif descriptor in self._children:  # the worker has given up
                    os.kill(self._children[descriptor], signal.SIGKILL)
                    self._poll.unregister(descriptor)

    def _take(self) -> None:
        message, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        if not message:
            self._end()
        for descriptor in descriptors:
            self._start(socket.socket(fileno=descriptor))

    def _start(self, job: socket.socket) -> None:
        host = os.getpid()
        try:
            child = os.fork()
        except OSError as exc:
            with job, suppress(OSError):
                job.sendall(unstarted_line(f"fork: {exc}"))
            return
        if not child:
            run(job, host, self._memory, self._enclosure)
        self._jobs[child] = job
        self._children[job.fileno()] = child
        self._poll.register(job, 0)  # reports only that the other end is closed

    def _reap(self) -> None:
        while self._children:
            child, status, usage = os.wait4(-1, os.WNOHANG)
            if not child:
                return
            job = self._jobs.pop(child)
            del self._children[job.fileno()]
            with suppress(KeyError):
                self._poll.unregister(job)
            with job, suppress(OSError):
                line = ended_line(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _KIB)
                job.sendall(line)

    def _end(self) -> NoReturn:
        for child in self._children.values():
            os.kill(child, signal.SIGKILL)
        os._exit(0)
