"""The gunicorn worker: threads for what takes time, and an event loop that answers cache hits itself."""

from app.worker.logger import RequestLogger
from app.worker.loop import HitWorker
from app.worker.refusal import write_refusal

__all__ = ["HitWorker", "RequestLogger", "write_refusal"]
