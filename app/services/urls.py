"""The URLs of stored images, and the host names of this server that may appear in them."""

from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from app.core.addresses import is_loopback
from app.core.errors import StoreBusy
from app.core.object_keys import check_readable, url_path
from app.core.threads import Bulkhead
from app.core.variant_keys import VariantPath
from app.stores.base import BaseStore

IMAGES_PATH = "/api/images/"
"""The path prefix of the images that this server serves. The object key follows it."""


def variant_url_path(path: VariantPath) -> str:
    """Return the URL path of a variant with a canonical name. Unlike in the key, commas are not encoded."""
    extension = f".{path.extension}" if path.extension else ""
    return f"{IMAGES_PATH}{url_path(path.source)}/{path.name}{extension}"


class ImageUrls:
    """Builds the URLs that clients get for stored images.

    With the mode `s3` or `presigned`, the URL of an image points to the store; with `server`, to this server.
    With `auto`, the URL points to the store if the image is known to be public there, else to this server. If
    the store has no URLs, the URL points to this server in every mode.

    If `base_url` is not empty, all image URLs begin with it, whatever the mode. `base_url` is the URL of a
    CDN in front of the bucket or in front of this server's `/api/images`. `bulkhead` limits the threads that
    wait for the store.
    """

    def __init__(self, store: BaseStore, mode: str, base_url: str, bulkhead: Bulkhead | None = None) -> None:
        self._store = store
        self._mode = mode
        self._base_url = base_url.rstrip("/")
        self._bulkhead = bulkhead or Bulkhead()

    def url_of(self, key: str) -> str:
        """Return an absolute URL, or a path on this server that begins with `IMAGES_PATH`.

        Raises `InvalidKey` for a key that clients could change when they normalize its URL.
        """
        check_readable(key)
        if self._base_url:
            return f"{self._base_url}/{url_path(key)}"
        return self._url_at_store(key) or IMAGES_PATH + url_path(key)

    def _url_at_store(self, key: str) -> str | None:
        if self._mode == "presigned":
            with self._bulkhead.calling():  # signing can require a request that renews temporary credentials
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
    """Decides whether the host name in the `Host` header of a request may appear in URLs.

    A client can send any name, so only loopback names and `names` are trusted. With `trust_all`, all names
    are trusted, since a proxy has checked them.
    """

    def __init__(self, names: Sequence[str], *, trust_all: bool) -> None:
        self._names = frozenset(name.lower() for name in names)
        self._trust_all = trust_all

    def absolute_url(self, url: str, *, host_url: str, script_name: str) -> str:
        """Return an absolute URL if the host is trusted, else a path.

        `url` is absolute, or a path of the application; a path is prefixed with the mount point
        `script_name`. `host_url` is the URL of the host, such as `https://example.org:8000/`.
        """
        if not url.startswith("/"):
            return url
        prefix = quote(script_name.strip("/"))
        path = f"/{prefix}{url}" if prefix else url
        name = (urlsplit(host_url).hostname or "").lower()
        is_trusted = self._trust_all or name in self._names or is_loopback(name)
        return host_url.rstrip("/") + path if is_trusted else path
