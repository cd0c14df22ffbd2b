"""A server whose page comes through a slow line."""

import time
from collections.abc import Iterator

import requests
from flask import Flask, Response, request

PIECES = 50
PAUSE_SECONDS = 0.05
"""Longer than Chromium takes for a frame: it paints what has come so far."""


def slow_page(url: str) -> Flask:
    """An application that passes on what the server at `url` answers to GET: the page at `/` in pieces.

    The rest at once: as long as a style sheet is under way, nothing is painted.
    """
    line = Flask(__name__, static_folder=None)

    @line.get("/")
    def page() -> Response:
        answer = _ask(url)
        return Response(_pieces(answer.content), answer.status_code)

    @line.get("/<path:path>")
    def other(path: str) -> Response:
        answer = _ask(f"{url}/{path}")
        return Response(answer.content, answer.status_code, content_type=answer.headers["Content-Type"])

    return line


def _ask(url: str) -> requests.Response:
    return requests.get(url, params=request.args.to_dict(), headers={"Host": request.host}, timeout=60)


def _pieces(body: bytes) -> Iterator[bytes]:
    size = len(body) // PIECES + 1
    for start in range(0, len(body), size):
        yield body[start : start + size]
        time.sleep(PAUSE_SECONDS)
