"""WhiteNoise in front of an application that always answers 404."""

import importlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def _not_found(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    start_response("404 Not Found", [("Content-Length", "0")])
    return ()


# WhiteNoise is not in the requirements, so mypy does not know it. It is imported dynamically.
application = importlib.import_module("whitenoise").WhiteNoise(_not_found, root=os.environ["BENCH_FILES"])
