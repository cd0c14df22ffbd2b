"""Which store a cache directory was filled from: another one's images must not be served as this one's."""

import hashlib
import logging

from app.cache.layout import Layout
from app.filelock import locked

_log = logging.getLogger(__name__)


def keep_only(layout: Layout, origin: str) -> None:
    """Empty the directory where it was filled from another origin. Raises `OSError`."""
    digest = hashlib.sha256(origin.encode()).hexdigest()
    with locked(layout.locks / "origin"):
        known = layout.origin.read_text(encoding="ascii") if layout.origin.exists() else digest
        if known != digest:
            _log.warning("The cache holds images of another store, and is emptied.")
            layout.remove_everything()
        layout.origin.write_text(digest, encoding="ascii")
