"""The minimal WSGI application that sends a file: it opens the file and passes it to the server."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_ROOT = os.environ["BENCH_FILES"]


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Answer 200 with the file, or 404."""
    try:
        file = open(_ROOT + environ["PATH_INFO"], "rb")  # noqa: SIM115 (the server closes it)
    except OSError:
        start_response("404 Not Found", [("Content-Length", "0")])
        return ()
    size = os.fstat(file.fileno()).st_size
    start_response("200 OK", [("Content-Type", "image/png"), ("Content-Length", str(size))])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 256 * 1024)
    return wrapped
