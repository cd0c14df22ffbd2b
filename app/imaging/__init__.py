"""Takes bytes from outside, proves that they are an image within the limits, and cleans them.

`check_image` is the gate for uploads; `encode_image` writes pictures that we made ourselves.
Nothing here knows of HTTP or of the store.
"""

from app.imaging.check import CheckedImage, check_image
from app.imaging.encode import encode_image
from app.imaging.limits import ImageLimits

__all__ = ["CheckedImage", "ImageLimits", "check_image", "encode_image"]
