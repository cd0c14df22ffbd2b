"""Takes bytes from outside, proves that they are an image within the limits, and cleans them.

`check_image` is the gate for uploads, `clean_image` and `decode_image` are its halves; `encode_image` writes
pictures that we made ourselves.
Nothing here knows of HTTP or of the store.
"""

from app.imaging.check import CheckedImage, CleanedImage, check_image, clean_image, decode_image
from app.imaging.encode import encode_image
from app.imaging.limits import ImageLimits

__all__ = [
    "CheckedImage",
    "CleanedImage",
    "ImageLimits",
    "check_image",
    "clean_image",
    "decode_image",
    "encode_image",
]
