"""WhiteNoise in front of an application that answers nothing."""

import importlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def _nothing(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    start_response("404 Not Found", [("Content-Length", "0")])
    return ()


# Not among our requirements, so neither imported by name nor known to mypy.
application = importlib.import_module("whitenoise").WhiteNoise(_nothing, root=os.environ["BENCH_FILES"])
