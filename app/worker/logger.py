"""gunicorn's logger, with our access log."""

from datetime import timedelta
from typing import Any, ClassVar

from gunicorn.glogging import Logger

from app.logs import AccessLog
from app.worker.refusal import MalformedRequest, code_of, refusal


class RequestLogger(Logger):  # type: ignore[misc]
    """Logs each request to `requests`; none where that is None."""

    requests: ClassVar[AccessLog | None] = None

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        """What gunicorn calls when an answer is sent, or its client has gone."""
        if isinstance(req, MalformedRequest):
            req.count(resp.status[:3], code_of(int(resp.status[:3])))
            resp.sent = len(refusal(int(resp.status[:3])))
        if self.requests is not None and resp.status:
            self.requests.log(environ, resp.status, _body_bytes(resp), request_time.total_seconds())


def _body_bytes(resp: Any) -> int:
    """Of files that the kernel sends gunicorn counts nothing: those are as long as was announced."""
    return int(resp.sent or (0 if resp._omits_body else resp.response_length or 0))
