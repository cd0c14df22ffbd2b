"""Check uploaded bytes: they have to be an image within the limits, complete, and in an allowed format.

`check_image` does all of it. Its two halves can also be called alone: `clean_image` parses the container and
strips metadata, `decode_image` decodes every pixel. The server runs `check_image` in a child process, see
`app.imaging.sandbox`. Nothing here knows HTTP or the store.
"""

from collections.abc import Callable
from dataclasses import dataclass

from app.core.errors import UndecodableImage
from app.core.objects import ImageFormat
from app.imaging.avif import survey_avif
from app.imaging.decode import check_jpeg_ends_with_its_scan, decode, decoder_errors
from app.imaging.gain_map import append_gain_map
from app.imaging.gif import survey_gif
from app.imaging.jpeg import survey_jpeg
from app.imaging.orientation import upright
from app.imaging.png import survey_png
from app.imaging.sniff import sniff_format
from app.imaging.survey import QUARTER_TURNED, UPRIGHT, GainMap, ImageLimits, Survey
from app.imaging.webp import survey_webp

_PARSERS: dict[str, Callable[[bytes, ImageLimits], Survey]] = {
    "avif": survey_avif,
    "gif": survey_gif,
    "jpeg": survey_jpeg,
    "png": survey_png,
    "webp": survey_webp,
}


@dataclass(frozen=True, slots=True)
class CleanedImage:
    """The bytes to store, not decoded yet, so they may be damaged.

    `width` and `height`, in pixels, and `frames` are those found in the container.
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
    """The bytes to store, all of which were decoded.

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
    """Return the image in `data` as it is to be stored. The format is found in the bytes alone.

    With `limits.strip_metadata` the result has no metadata, nothing after the image's end, and its pixels
    are upright; without it, the result is `data` itself. Either way, a missing end marker is added. The
    result's bytes are the ones that were decoded.

    `before_decoding` is called with the number of pixels, in all frames, before a decoder runs.

    Raises UnsupportedImage, UndecodableImage, TooManyPixels.
    """
    return decode_image(clean_image(data, limits, before_decoding=before_decoding), limits)


def clean_image(
    data: bytes, limits: ImageLimits, *, before_decoding: Callable[[int], None] = _ignore
) -> CleanedImage:
    """Parse the container and strip metadata: the first half of `check_image`, with the same arguments.

    It decodes pixels only to turn an image upright, to check a gain map, or to find out whether a JPEG
    without an end marker is complete.

    Raises UnsupportedImage, UndecodableImage, TooManyPixels.
    """
    format = sniff_format(data, limits.formats)
    with decoder_errors():
        survey = _PARSERS[format.name](data, limits)
        before_decoding(survey.pixels)
        if survey.missing_end and format.name == "jpeg":
            check_jpeg_ends_with_its_scan(data, (survey.width, survey.height))
        complete = data + survey.missing_end
        if not limits.strip_metadata:
            return CleanedImage(complete, format, survey.width, survey.height, survey.frames)
        return _strip(complete, format, survey)


def decode_image(cleaned: CleanedImage, limits: ImageLimits) -> CheckedImage:
    """Decode every frame: the second half of `check_image`.

    Raises UndecodableImage if the image is damaged or if its size differs from that in the container, and
    TooManyPixels if `clean_image` was called with other limits.
    """
    size = cleaned.width, cleaned.height
    limits.check(size, cleaned.frames)
    width, height = decode(cleaned.data, cleaned.format, size, cleaned.frames)
    return CheckedImage(cleaned.data, cleaned.format, width, height, cleaned.frames)


def _strip(data: bytes, format: ImageFormat, survey: Survey) -> CleanedImage:
    clean, width, height = survey.clean, survey.width, survey.height
    if survey.orientation != UPRIGHT:
        clean = upright(clean, format, survey.orientation, (width, height))
        if survey.orientation in QUARTER_TURNED:
            width, height = height, width
    if survey.gain_map is not None:
        clean = _with_gain_map(clean, format, survey.gain_map, survey.orientation)
    # Equal bytes are returned as the same object: it saves a copy, and comparing them later.
    return CleanedImage(data if clean == data else clean, format, width, height, survey.frames)


def _with_gain_map(picture: bytes, format: ImageFormat, gain_map: GainMap, orientation: int) -> bytes:
    """Return the picture with its gain map, turned as the picture was, or without it if that is damaged."""
    clean, size = gain_map.clean, gain_map.size
    try:
        with decoder_errors():
            if orientation == UPRIGHT:
                decode(clean, format, size, 1)
            else:
                clean = upright(clean, format, orientation, size)
    except UndecodableImage:
        return picture
    return append_gain_map(picture, clean, gain_map)
