"""The child that checks one image: confined first, gone afterwards with all its memory."""

import os
import socket
from typing import NoReturn

from app.errors import AppError, UndecodableImage
from app.imaging.check import check_image
from app.imaging.sandbox.bounds import decoding_bounds, survey_bounds
from app.imaging.sandbox.confinement import Enclosure, close_from, die_with_parent, hold_to, raise_to
from app.imaging.sandbox.files import contents, write
from app.imaging.sandbox.messages import checked_line, limits_in, most_stored, refused_line

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
