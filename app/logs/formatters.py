"""Records as lines: text for people, JSON for machines. Both hold the id of the request."""

import logging
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from app.logs.escape import escaped
from app.logs.moment import timestamp


class TextLines(logging.Formatter):
    """`time LEVEL [request id] logger: message`; tracebacks are indented, and so are no records."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and those of the traceback."""
        request_id = getattr(record, "request_id", "") or "-"
        head = f"{timestamp(record.created)} {record.levelname} [{request_id}] {record.name}:"
        lines = [f"{head} {escaped(record.getMessage())}"]
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            lines += [f"    {escaped(line)}" for line in trace.splitlines()]
        return "\n".join(lines)


class JsonLines(JsonFormatter):
    """Objects with `time`, `level`, `logger`, `request_id`, `message`, and `exception` where there is one."""

    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(request_id)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        )

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """The time first, as the access log has it."""
        log_data["time"] = timestamp(record.created)
        super().add_fields(log_data, record, message_dict)
