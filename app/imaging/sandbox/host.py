"""The decoder host and its children. The host has the decoders loaded, and forks a child for each image.

A fork takes a millisecond, and the child starts from clean memory. Starting Python for each image would take
200 ms. The host itself never reads any part of an image. It exits when the worker closes its end of the
control socket.
"""

import gc
import os
import select
import signal
import socket
from collections.abc import Callable
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
    Landlock,
    close_all_from,
    decoding_limits,
    die_with_parent,
    limit_resources,
    mapped_memory,
    prefer_as_oom_victim,
    raise_limits,
    start_session,
    survey_limits,
    unsupported_limits,
)
from app.imaging.sandbox.protocol import (
    Job,
    decode_job,
    encode_checked,
    encode_described,
    encode_exit,
    encode_made,
    encode_refusal,
    encode_start_failure,
    read_all,
    write_all,
)
from app.imaging.variants import describe_image, make_variant

PLUGINS = (
    *(AvifImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin),
    TiffImagePlugin,
)
"""Pillow's plugins for the five formats, and for TIFF, which is needed to read EXIF. They are loaded once,
for all children."""

_CODE = (Path(str(os.__file__)).parent, Path(str(PIL.__file__)).parent, Path(__file__).parents[2])
"""The directories of Python's standard library, Pillow and the package `app`. A child is allowed to read
them, since it may import more modules."""

_NICENESS = 5
"""The nice value of the host and its children, which gives them a lower priority than the workers. If all
cores are busy, the workers get three quarters of the CPU time."""
_ADDED_NICENESS = 5
"""What is added to the nice value of a child unless it checks an upload, so that variants don't slow down
uploads."""
_MAX_JOB_BYTES = 1 << 16
_KIB = 1024


def serve(cores: str) -> NoReturn:
    """Serve the worker at the other end of standard input, until the worker exits.

    `cores` lists the CPU cores to run on, separated by commas. If it is empty, all cores are used.
    """
    # In a session of its own, Ctrl-C in a terminal does not end the host before its worker.
    start_session(_NICENESS)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    close_all_from(3)
    unsupported_limits()  # caches the result for all children
    with suppress(OSError):  # not allowed, or a core is no longer available
        if cores:
            os.sched_setaffinity(0, map(int, cores.split(",")))
    with suppress(OSError):
        prefer_as_oom_victim()
    Image.preinit()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each additional thread would need memory for a whole frame
    gc.collect()
    gc.freeze()  # so that garbage collection in children doesn't copy the host's pages
    Host(socket.socket(fileno=os.dup(0))).run()


class Host:
    """Starts a child for each job. A job is a socket that is received over `control`.

    When the child has ended, the host reports over the socket of the job how the child ended.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._jobs: dict[int, socket.socket] = {}
        self._children: dict[int, int] = {}
        self._memory = mapped_memory()
        self._landlock = Landlock(_CODE)
        self._poll = select.poll()

    def run(self) -> NoReturn:
        """Serve until the other end of `control` is closed. Then kill the children and exit."""
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
                    self._accept_job()
                elif descriptor in self._children:  # the worker closed its end, so it is no longer waiting
                    os.kill(self._children[descriptor], signal.SIGKILL)
                    self._poll.unregister(descriptor)

    def _accept_job(self) -> None:
        message, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        if not message:
            for child in self._children.values():
                os.kill(child, signal.SIGKILL)
            os._exit(0)
        for descriptor in descriptors:
            self._start_child(socket.socket(fileno=descriptor))

    def _start_child(self, job: socket.socket) -> None:
        host = os.getpid()
        try:
            child = os.fork()
        except OSError as exc:
            with job, suppress(OSError):
                job.sendall(encode_start_failure(f"fork: {exc}"))
            return
        if not child:
            run_child(job, host, self._memory, self._landlock)
        self._jobs[child] = job
        self._children[job.fileno()] = child
        self._poll.register(job, 0)  # reports only when the other end is closed

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
                job.sendall(encode_exit(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _KIB))


def run_child(job: socket.socket, host: int, own_memory: int, landlock: Landlock) -> NoReturn:
    """Receive a job over the socket `job`, confine this process, do the job, report over `job`, and exit.

    `host` is the process ID of the host, which forked this process. `own_memory` is the number of bytes that
    the host had mapped when it started.
    """
    status = 1
    try:
        die_with_parent(host)
        _close_all_but(job.fileno(), landlock.fileno())
        line, files, _, _ = socket.recv_fds(job, _MAX_JOB_BYTES, 2)
        task = decode_job(line)
        if task.kind != "check":
            start_session(_ADDED_NICENESS)
        landlock.restrict_self()
        _work_and_report(job, task, files, own_memory)
        status = 0
    finally:
        os._exit(status)


def _close_all_but(*descriptors: int) -> None:
    """Close all descriptors inherited from the host except `descriptors`. Discard anything decoders print."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    before = 2
    for descriptor in sorted(descriptors):
        os.closerange(before + 1, descriptor)
        before = max(before, descriptor)
    close_all_from(before + 1)


def _work_and_report(job: socket.socket, task: Job, files: list[int], own_memory: int) -> None:
    image, result = files
    size = os.fstat(image).st_size

    def raise_for(pixels: int) -> None:
        raise_limits(decoding_limits(size, pixels), own_memory)

    highest = decoding_limits(size, task.max_pixels)
    limit_resources(survey_limits(size), highest, own_memory, task.max_result_bytes(size))
    try:
        job.sendall(_work(task, read_all(image, size), result, raise_for))
    except AppError as error:
        job.sendall(encode_refusal(error))
    except Exception as exc:
        refusal = UndecodableImage(detail=repr(exc))
        refusal.__cause__ = exc
        job.sendall(encode_refusal(refusal))


def _work(task: Job, data: bytes, result: int, raise_for: Callable[[int], None]) -> bytes:
    """Do the task with the image in `data`, write its result, if any, to `result`, and return the report."""
    if task.request is not None:
        made = make_variant(data, task.request, task.limits, before_decoding=raise_for)
        write_all(result, made.data)
        return encode_made(made)
    if task.kind == "describe":
        return encode_described(describe_image(data, task.limits, before_decoding=raise_for))
    checked = check_image(data, task.limits, before_decoding=raise_for)
    changed = checked.data != data
    if changed:
        write_all(result, checked.data)
    return encode_checked(checked, changed=changed)
