"""The URLs of variants, which clients get in responses or which the operator signs."""

from bisect import bisect_right
from collections.abc import Callable
from typing import Self

from app.config.settings import Config
from app.config.variant_fields import SRCSET
from app.core.errors import InvalidKey, VariantNotPermitted
from app.core.object_keys import check_readable, is_readable, url_path
from app.core.variant_keys import VariantPath, can_have_variants
from app.services.urls import IMAGES_PATH, variant_url_path
from app.services.variant_rules import VariantRules

_MIN_SRCSET_WIDTH = 320
_MIN_SRCSET_RATIO = 1.4
"""A width that is only a little larger than the previous one saves few bytes, but costs another variant."""


class VariantUrls:
    """Builds the URLs of variants.

    The URLs begin with `base_url`, the URL of a CDN in front of this server's `/api/images`, or are paths
    that begin with `IMAGES_PATH` if it is empty.
    """

    def __init__(self, rules: VariantRules, base_url: str = "") -> None:
        self.rules = rules
        self._prefix = f"{base_url.rstrip('/')}/" if base_url else IMAGES_PATH
        self._srcset_widths = _spread(rules.widths)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return an instance for the settings. Raises `ConfigError` if the key of signatures is unusable."""
        return cls(VariantRules.from_config(config), config.variants_base)

    def url_of(self, key: str, name: str, extension: str = "", expires_at: int | None = None) -> str:
        """Return the URL of a variant. It is signed if the variant is not listed.

        `name` is a spec or the name of a preset. Without `extension`, the server chooses the format for each
        client. `expires_at`, in seconds since the epoch, is when a signature expires. Listed variants need no
        signature and never expire.

        Raises `InvalidKey` if the key does not end in an image extension or is not safe in a URL,
        `InvalidVariant`, and `VariantNotPermitted` if variants are switched off.
        """
        check_readable(key)
        if not can_have_variants(key):
            raise InvalidKey("There are only variants of images whose key ends in an image extension.")
        if self.rules.mode == "off":
            raise VariantNotPermitted("Variants are switched off on this server.")
        path, _ = self.rules.canonical(VariantPath(key, name, extension.lower()))
        signed_path = variant_url_path(path)
        url = self._prefix + signed_path.removeprefix(IMAGES_PATH)
        if self.rules.is_listed(path):
            return url
        return f"{url}?{self.rules.signer.sign(signed_path, expires_at)}"

    def urls_of(
        self, key: str, width: int | None = None, absolute: Callable[[str], str] = str
    ) -> dict[str, str]:
        """Return the URL of each preset by its name, and the value for the `srcset` attribute of `<img>`.

        `absolute` turns the common part of the URLs, which can be a path, into an absolute URL.

        `width` is the width of the image in pixels, or None if it is unknown. `srcset` contains no larger
        widths. It is missing if no listed width fits, or if the width is unknown. Return an empty dict if the
        image has no variants.
        """
        if self.rules.mode == "off" or not (can_have_variants(key) and is_readable(key)):
            return {}
        prefix = absolute(f"{self._prefix}{url_path(key)}/")
        urls = {name: prefix + name for name in self.rules.presets}
        if widths := self._widths_up_to(width or 0):
            urls[SRCSET] = ", ".join(f"{prefix}w{listed} {listed}w" for listed in widths)
        return urls

    def _widths_up_to(self, width: int) -> tuple[int, ...]:
        """Return some of the listed widths up to that of the image, among them the largest one."""
        fitting = self._srcset_widths[: bisect_right(self._srcset_widths, width)]
        largest = self.rules.widths[: bisect_right(self.rules.widths, width)][-1:]
        return fitting if fitting[-1:] == largest else fitting + largest


def _spread(widths: tuple[int, ...]) -> tuple[int, ...]:
    """Return those of the ascending widths that are far enough apart to be worthwhile in a `srcset`."""
    chosen: list[int] = []
    for width in widths:
        if width >= (chosen[-1] * _MIN_SRCSET_RATIO if chosen else _MIN_SRCSET_WIDTH):
            chosen.append(width)
    return tuple(chosen)
