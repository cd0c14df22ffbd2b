"""Variants of our server: their paths, and how many of them it made."""

import re

from app.components import Components
from app.config.settings import Config
from app.services.signing import UrlSigner
from app.services.urls import IMAGES_PATH
from app.services.variant_rules import VariantRules
from bench.servers import Response, Server, get

MADE = "s3image_variants_made_total"
"""The counter of encodings in /metrics."""

WIDTH = 640

FORMATS = {"jpg": "image/jpeg", "webp": "image/webp", "avif": "image/avif"}
"""Maps the extensions of variants that are compared with peers to content types."""

ACCEPT = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
"""What Chrome sends in the Accept header of a request for an image."""


def upload(parts: Components, data: bytes) -> str:
    """Upload an image under a key that is made from its bytes, and return the key."""
    return parts.images.upload_image(data).key


def listed_names(config: Config) -> list[str]:
    """Return the names of all variants that need no signature."""
    signer = UrlSigner(["never used to sign"])
    rules = VariantRules(config.variants, config.variant_widths, dict(config.variant_presets), signer)
    return sorted(rules.listed)


def path_of(key: str, name: str) -> str:
    """Return the URL path of a variant. `name` is a spec, with an extension or without one."""
    return f"{IMAGES_PATH}{key}/{name}"


def fetch(server: Server, path: str, accept: str = "*/*") -> Response:
    """Return the response for a variant. Raises `RuntimeError` if it is not a 200 with a body."""
    response = get(server.port, path, {"Accept": accept})
    if response.status != 200 or not response.body:
        raise RuntimeError(f"{server.name}: {path}: {response.status} {response.body[:300]!r}")
    return response


def made(server: Server) -> int:
    """Return how many variants our server has encoded since its start.

    The counter is missing before the first one, so a result of 0 alone doesn't prove that it works.
    """
    text = get(server.port, "/metrics").body.decode()
    values = re.findall(rf"(?m)^{MADE}\{{.*\}} (\S+)$", text)
    return round(sum(map(float, values)))
