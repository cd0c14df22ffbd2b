"""The gate that every uploaded image passes.

Takes bytes from outside, proves that they are an image within the limits, and cleans them.

`check_image` is the gate for uploads, `clean_image` and `decode_image` are its halves; `encode_image` writes
pictures that we made ourselves.
Nothing here knows of HTTP or of the store.
"""

from collections.abc import Callable
from dataclasses import dataclass

from app.core.errors import UndecodableImage
from app.core.objects import ImageFormat
from app.imaging.avif import survey_avif
from app.imaging.decode import check_ends_with_its_scan, decode, undecodable
from app.imaging.gain_map import joined
from app.imaging.gif import survey_gif
from app.imaging.jpeg import survey_jpeg
from app.imaging.orientation import upright
from app.imaging.png import survey_png
from app.imaging.sniff import sniff_format
from app.imaging.survey import QUARTER_TURNED, UPRIGHT, GainMap, ImageLimits, Survey
from app.imaging.webp import survey_webp

_SURVEYS: dict[str, Callable[[bytes, ImageLimits], Survey]] = {
    "avif": survey_avif,
    "gif": survey_gif,
    "jpeg": survey_jpeg,
    "png": survey_png,
    "webp": survey_webp,
}


@dataclass(frozen=True, slots=True)
class CleanedImage:
    """What would be stored of an image; not decoded yet, so it may be damaged.

    `width` and `height`, in pixels, and `frames` are those found in its container.
    """

    data: bytes
    format: ImageFormat
    width: int
    height: int
    frames: int

    @property
    def pixels(self) -> int:
        """Return the pixels of all frames, to which the cost of decoding is proportional."""
        return self.width * self.height * self.frames


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image that was decoded to its end; `data` is what is to be stored.

    `width` and `height` are in pixels, as a decoder finds them in `data`.
    """

    data: bytes
    format: ImageFormat
    width: int
    height: int
    frames: int


def _ignore(pixels: int) -> None:
    pass


def check_image(
    data: bytes, limits: ImageLimits, *, before_decoding: Callable[[int], None] = _ignore
) -> CheckedImage:
    """Take `data` if it is an image within the limits, whatever name it came under.

    With `limits.strip_metadata` the result has no metadata, nothing after the image's end, and its
    pixels are upright; else it is `data` itself. Either way, an end marker that is missing is added. What is
    given back is what was decoded.

    `before_decoding` is called with the number of pixels, in all frames, before a decoder runs.

    Raises UnsupportedImage, UndecodableImage, TooManyPixels.
    """
    return decode_image(clean_image(data, limits, before_decoding=before_decoding), limits)


def clean_image(
    data: bytes, limits: ImageLimits, *, before_decoding: Callable[[int], None] = _ignore
) -> CleanedImage:
    """The first half of `check_image`: cheap, save for gain maps and pictures that have to be turned upright.

    Raises UnsupportedImage, UndecodableImage, TooManyPixels.
    """
    format = sniff_format(data, limits.formats)
    with undecodable():
        survey = _SURVEYS[format.name](data, limits)
        before_decoding(survey.pixels)
        if survey.missing_end and format.name == "jpeg":
            check_ends_with_its_scan(data, (survey.width, survey.height))
        whole = data + survey.missing_end
        if not limits.strip_metadata:
            return CleanedImage(whole, format, survey.width, survey.height, survey.frames)
        return _cleaned(whole, format, survey)


def decode_image(cleaned: CleanedImage, limits: ImageLimits) -> CheckedImage:
    """The second half of `check_image`: decode it, and check that its size is the one found before.

    Raises UndecodableImage, and TooManyPixels if `clean_image` was called with other limits.
    """
    size = cleaned.width, cleaned.height
    limits.check(size, cleaned.frames)
    width, height = decode(cleaned.data, cleaned.format, size, cleaned.frames)
    return CheckedImage(cleaned.data, cleaned.format, width, height, cleaned.frames)


def _cleaned(data: bytes, format: ImageFormat, survey: Survey) -> CleanedImage:
    clean, width, height = survey.clean, survey.width, survey.height
    if survey.orientation != UPRIGHT:
        clean = upright(clean, format, survey.orientation, (width, height))
        if survey.orientation in QUARTER_TURNED:
            width, height = height, width
    if survey.gain_map is not None:
        clean = _with_gain_map(clean, format, survey.gain_map, survey.orientation)
    return CleanedImage(data if clean == data else clean, format, width, height, survey.frames)


def _with_gain_map(picture: bytes, format: ImageFormat, gain_map: GainMap, orientation: int) -> bytes:
    """Return the picture with its gain map, turned as the picture was, or alone if that can't be decoded."""
    clean, size = gain_map.clean, gain_map.size
    try:
        with undecodable():
            if orientation == UPRIGHT:
                decode(clean, format, size, 1)
            else:
                clean = upright(clean, format, orientation, size)
    except UndecodableImage:
        return picture
    return joined(picture, clean, gain_map)
