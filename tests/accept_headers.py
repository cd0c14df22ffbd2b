"""`Accept` headers that clients send, and the format that each of them gets if the format is negotiated.

Those of browsers are the ones for `<img>`
(https://developer.mozilla.org/en-US/docs/Web/HTTP/Guides/Content_negotiation/List_of_default_Accept_values).
"""

AVIF, WEBP, FALLBACK = "avif", "webp", ""

BROWSERS = {
    "Chrome, Edge": ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", AVIF),
    "Firefox 128": ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", AVIF),
    "Firefox 92": ("image/avif,image/webp,*/*", AVIF),
    "Safari": (
        "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,"
        "image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
        AVIF,
    ),
    "Safari 14": ("image/webp,image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5", WEBP),
    "Firefox 65": ("image/webp,*/*", WEBP),
}
"""Header and format. nginx judges these as well."""

FALLBACKS = {
    "Safari 13": "image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5",
    "curl": "*/*",
    "any image": "image/*",
    "a page": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "none": "",
    "white space": "  , ,",
    "other formats": "image/jxl, image/heic",
    "longer names": "image/avif-sequence, image/webpx, ximage/avif, image/*+avif",
    "quality 0": "image/avif;q=0, image/webp;q=0.0, */*",
    "a lower quality": "image/avif;q=0.5, image/webp;q=0.9, image/jpeg",
    "a lower quality than PNG's": "image/avif;q=0.5,image/png;q=0.6",
    "a lower quality than that of any image": "image/avif;q=0.7,image/*;q=0.8",
    "an invalid quality": "image/avif;q=2, image/webp;q=x",
    "garbage": "\xff;;;=,\"'\\/",
    "8 KB of commas": "," * 8000,
    "8 KB of media types": "image/" * 1300,
    "8 KB of parameters": "image/avif" + ";a=b" * 2000 + ";q=0",
}
"""Headers of clients that get JPEG or PNG."""

QUALITIES = {
    "AVIF equals WebP": ("image/webp;q=0.8,image/avif;q=0.8", AVIF),
    "WebP before AVIF": ("image/webp, image/avif;q=0.9", WEBP),
    "AVIF is not accepted": ("image/avif;q=0,image/webp,*/*;q=0.1", WEBP),
    "AVIF equals all": ("image/avif;q=0.5,*/*;q=0.5", AVIF),
    "JPEG is not accepted": ("image/avif;q=0.1, image/jpeg;q=0, image/png;q=0", AVIF),
    "lower case": ("Image/AVIF", AVIF),
    "upper case q": ("image/avif;Q=0, image/webp", WEBP),
    "spaces": (" image/webp ; q=1 , image/jpeg ; q=0.5", WEBP),
    "long": ("image/webp," + "a/b," * 2000, WEBP),
}
"""Header and format of other requests."""
