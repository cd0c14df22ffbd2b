"""Requests for variants of a cached image, and how the fast path and nginx treat them alike."""

from tests.accept_headers import BROWSERS

HITS = [
    ("w32.avif", ""),
    ("w32.webp", ""),
    ("w32.jpg", ""),
    ("w32.png", ""),
    ("w32,still.png", ""),
    ("thumb.gif", "*/*"),
    ("thumb.webp", "image/avif"),
    *(("w32", accept) for accept, _ in BROWSERS.values()),
    ("w32,still", "image/avif"),
    ("thumb", "image/avif"),
]
"""The name and the `Accept` header of listed variants that are served without the application once cached."""

REFUSED = [
    ("W32.webp", 308),
    ("w032.webp", 308),
    ("w32.WEBP", 308),
    ("w32.jpeg", 308),
    ("w32,still.jpg", 308),
    ("still,w32.png", 308),
    ("w32,contain.png", 308),
    ("THUMB", 308),
    ("w33.webp", 400),
    ("h32.webp", 400),
    ("w32.gif", 400),
    ("w32,h32,cover.webp", 400),
    ("w32,h32,cover.webp?sig=AAAA", 403),
    ("w32,thumb.webp", 400),
    ("w32.svg", 400),
    ("w32.", 400),
    ("w32.webp.avif", 400),
    ("w32..webp", 400),
    ("w32.json", 400),
    ("nothing", 400),
    ("info.json", 400),
    ("info.webp", 400),
    ("w32+first.webp", 400),
    (",.webp", 400),
    ("%00.webp", 400),
    ("w32%0a.webp", 400),
    ("w32.webp%00", 400),
    ("%E2%91%A0.webp", 400),
]
"""The name and the status of each variant that is not the canonical path of a listed one."""
