"""A Flask view with `send_file`, as in Flask's documentation."""

import os
from pathlib import Path

from flask import Flask, Response, abort, send_file

_ROOT = Path(os.environ["BENCH_FILES"])

application = Flask(__name__, static_folder=None)


@application.get("/<path:key>")
def serve(key: str) -> Response:
    """Answer 200 with the file, 304 or 404."""
    path = _ROOT / key
    if not path.is_file():
        abort(404)
    return send_file(path)
