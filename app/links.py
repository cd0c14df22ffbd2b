"""The URL that a client is told for a stored image."""

from app.keys import url_path
from app.stores.base import BaseStore

SERVER_PATH = "/api/images/"


class ImageLinks:
    """Decides between the store's URL and this server's.

    `mode` is `s3`, `server`, or `auto`: the store's where browsers can read it. `base_url`, where set, stands
    before every key: that of a CDN in front of the bucket, or in front of this server's `/api/images`.
    """

    def __init__(self, store: BaseStore, mode: str, base_url: str) -> None:
        self._store = store
        self._mode = mode
        self._base_url = base_url.rstrip("/")

    def url_of(self, key: str) -> str:
        """An absolute URL, or a path on this server beginning with `/api/images/`."""
        if self._base_url:
            return f"{self._base_url}/{url_path(key)}"
        if self._mode == "s3" or (self._mode == "auto" and self._store.is_public()):
            return self._store.object_url(key) or SERVER_PATH + url_path(key)
        return SERVER_PATH + url_path(key)
