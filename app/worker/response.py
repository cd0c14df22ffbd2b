"""gunicorn's response, for a sender that does not block."""

from typing import Any

from gunicorn.http.wsgi import FileWrapper, Response

from app.requestid import HEADER
from app.worker.sending import Sending


class LoopResponse(Response):  # type: ignore[misc]
    """Says what to send instead of sending it, with the `request_id` among the headers."""

    request_id = ""

    def sending(self, body: Any) -> Sending:
        """The whole answer, `body` being what the application returned."""
        close = getattr(body, "close", _nothing)
        if isinstance(body, FileWrapper):
            return Sending(self._head(), close, body.filelike.fileno(), self.response_length)
        return Sending(self._head() + (b"" if self._omits_body else b"".join(body)), close)

    def _head(self) -> bytes:
        lines = self.default_headers()
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        lines.append(f"{HEADER}: {self.request_id}\r\n")
        return ("".join(lines) + "\r\n").encode("latin-1")


def _nothing() -> None:
    """For bodies that have nothing to close."""
