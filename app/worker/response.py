"""gunicorn's response, for a sender that does not block."""

import os
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from gunicorn.http.wsgi import FileWrapper, Response
from gunicorn.util import has_fileno

from app.requestid import HEADER
from app.worker.sending import Sending


class LoopResponse(Response):  # type: ignore[misc]
    """Says what to send instead of sending it, with the `request_id` among the headers."""

    request_id = ""

    def sending(self, body: Any) -> Sending | None:
        """The whole answer, `body` being what the application returned; None where it has to be streamed."""
        if self._omits_body:
            return Sending(self._head())
        if self.response_length is None:
            return None
        if not isinstance(body, FileWrapper):
            return Sending(self._head() + b"".join(body))
        if not has_fileno(body.filelike):
            return None
        file = body.filelike.fileno()
        return Sending(self._head(), file, os.lseek(file, 0, os.SEEK_CUR), self.response_length)

    def stream(self, body: Iterable[bytes]) -> None:
        """Send `body` piece by piece, as it comes."""
        for piece in body:
            self.write(piece)
        self.close()

    def process_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """As gunicorn; raises what it does. Hits have the same few headers again and again."""
        for name, value in headers:
            kept, length, upgrade = _checked(name, value)
            self.headers += kept
            if length is not None:
                self.response_length = length
            if upgrade:
                self.upgrade = True

    def default_headers(self) -> list[str]:
        """gunicorn's own headers, and the request's id."""
        lines: list[str] = super().default_headers()
        lines.append(f"{HEADER}: {self.request_id}\r\n")
        return lines

    def _head(self) -> bytes:
        lines = self.default_headers()
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        return ("".join(lines) + "\r\n").encode("latin-1")


@lru_cache(maxsize=1024)
def _checked(name: str, value: str) -> tuple[list[tuple[str, str]], int | None, bool]:
    """What gunicorn makes of a header: what is sent of it, a length, and whether it is an upgrade."""
    alone = Response.__new__(Response)
    alone.headers, alone.response_length, alone.upgrade = [], None, False
    alone.process_headers([(name, value)])
    return alone.headers, alone.response_length, alone.upgrade
