"""What is logged: records as text or JSON, each with its request's id, and a line for each request."""

from app.logs.access import AccessLog
from app.logs.setup import configure_logging, logging_config

__all__ = ["AccessLog", "configure_logging", "logging_config"]
