"""The gunicorn worker: threads for what takes time, and an event loop that answers cache hits itself."""

from app.server.request_logger import RequestLogger
from app.server.worker import ImageWorker

__all__ = ["ImageWorker", "RequestLogger"]
