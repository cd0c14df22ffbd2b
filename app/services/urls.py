"""The URLs of stored images, and the addresses of this server that may appear in them."""

from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from app.core.addresses import is_loopback
from app.core.errors import StoreBusy
from app.core.object_keys import check_readable, url_path
from app.core.threads import Bulkhead
from app.stores.base import BaseStore

IMAGES_PATH = "/api/images/"
"""The path of this server below which it serves images by their keys."""


class ImageUrls:
    """Makes the URLs that clients get for stored images.

    `mode` is `s3` or `presigned` (the store's URL), `server` (this server's), or `auto`: the store's if
    browsers are known to be able to read it, else this server's. If the store has no URLs, all modes use
    this server's.

    `base_url`, if not empty, replaces all of these: the URL of a CDN in front of the bucket or of this
    server's `/api/images`. `bulkhead` limits the threads that wait for the store.
    """

    def __init__(self, store: BaseStore, mode: str, base_url: str, bulkhead: Bulkhead | None = None) -> None:
        self._store = store
        self._mode = mode
        self._base_url = base_url.rstrip("/")
        self._bulkhead = bulkhead or Bulkhead()

    def url_of(self, key: str) -> str:
        """Return an absolute URL, or a path on this server that begins with `IMAGES_PATH`.

        Raises `InvalidKey` for a key whose URL clients could take for another one.
        """
        check_readable(key)
        if self._base_url:
            return f"{self._base_url}/{url_path(key)}"
        return self._url_at_store(key) or IMAGES_PATH + url_path(key)

    def _url_at_store(self, key: str) -> str | None:
        if self._mode == "presigned":
            with self._bulkhead.calling():  # signing may first renew temporary credentials
                return self._store.signed_url(key)
        if self._mode == "s3" or (self._mode == "auto" and self._is_public(key)):
            return self._store.object_url(key)
        return None

    def _is_public(self, key: str) -> bool:
        try:
            with self._bulkhead.calling():
                return self._store.is_public(key)
        except StoreBusy:
            return False


class TrustedHosts:
    """Decides whether the `Host` of a request may appear in a URL: any client can send any name.

    The names of this machine may, and those in `names`; with `trust_all`, a proxy vouches for every name.
    """

    def __init__(self, names: Sequence[str], *, trust_all: bool) -> None:
        self._names = frozenset(name.lower() for name in names)
        self._trust_all = trust_all

    def absolute_url(self, url: str, *, host_url: str, script_name: str) -> str:
        """Return a URL for use outside the pages of this server.

        `url` is absolute, or a path of the application, which gets the mount point `script_name` in front. It
        stays a path if the host of `host_url`, such as `https://example.org:8000/`, is not trusted.
        """
        if not url.startswith("/"):
            return url
        prefix = quote(script_name.strip("/"))
        path = f"/{prefix}{url}" if prefix else url
        name = (urlsplit(host_url).hostname or "").lower()
        is_trusted = self._trust_all or name in self._names or is_loopback(name)
        return host_url.rstrip("/") + path if is_trusted else path
