"""Check that uploaded bytes are a complete image in an allowed format and within the limits.

`check_image` does the whole check. Its two halves can also be called separately: `clean_image` parses the
container and strips metadata, and `decode_image` decodes every pixel. The server runs `check_image` in a
child process; see `app.imaging.sandbox`. This module depends on neither HTTP nor the store.
"""

from collections.abc import Callable
from dataclasses import dataclass

from app.core.errors import UndecodableImage
from app.core.object_metadata import ImageInfo
from app.core.objects import ImageFormat
from app.imaging.avif import survey_avif
from app.imaging.decode import check_jpeg_without_end_marker, decode, decoder_errors
from app.imaging.gain_map import append_gain_map
from app.imaging.gif import survey_gif
from app.imaging.jpeg import survey_jpeg
from app.imaging.orientation import rotate_upright
from app.imaging.png import survey_png
from app.imaging.sniff import sniff_format
from app.imaging.survey import SIDEWAYS_ORIENTATIONS, UPRIGHT, GainMap, ImageLimits, Survey
from app.imaging.webp import survey_webp

PARSERS: dict[str, Callable[[bytes, ImageLimits], Survey]] = {
    "avif": survey_avif,
    "gif": survey_gif,
    "jpeg": survey_jpeg,
    "png": survey_png,
    "webp": survey_webp,
}
"""The parser of each format's container, by the name of the format."""


@dataclass(frozen=True, slots=True)
class CleanedImage:
    """An image whose container was checked. Its pixels may be damaged, since they were not decoded.

    `data` holds the bytes to store. `width` and `height` (in pixels) and `frames` are the values that the
    container of `data` declares.
    """

    data: bytes
    format: ImageFormat
    width: int
    height: int
    frames: int

    @property
    def pixels(self) -> int:
        """Return the number of pixels in all frames. The cost of decoding is proportional to this number."""
        return self.width * self.height * self.frames


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image that was decoded completely.

    `data` holds the bytes to store. `width` and `height` are in pixels, as the decoder of `data` reported
    them. The other facts are those of `ImageInfo`.
    """

    data: bytes
    format: ImageFormat
    width: int
    height: int
    frames: int
    has_alpha: bool = False
    thumbhash: str = ""

    @property
    def info(self) -> ImageInfo:
        """Return the facts about the picture."""
        return ImageInfo(self.width, self.height, self.frames, self.has_alpha, self.thumbhash)


def _ignore(pixels: int) -> None:
    pass


def check_image(
    data: bytes, limits: ImageLimits, *, before_decoding: Callable[[int], None] = _ignore
) -> CheckedImage:
    """Check the image in `data`, and return it in the form to store. Its format is detected from the bytes.

    If `limits.strip_metadata` is set, the stored image has no metadata and no bytes after its end, and its
    pixels are rotated upright. Otherwise, `data` is stored unchanged. In both cases, an end marker is
    added if it is missing. The bytes in the result are exactly the bytes that were decoded.

    `before_decoding` is called with the number of pixels in all frames before a decoder runs.

    Raises UnsupportedImage if the format is not allowed, TooManyPixels if the image exceeds the limits, and
    UndecodableImage if it is damaged.
    """
    return decode_image(clean_image(data, limits, before_decoding=before_decoding), limits)


def clean_image(
    data: bytes, limits: ImageLimits, *, before_decoding: Callable[[int], None] = _ignore
) -> CleanedImage:
    """Parse the container and strip metadata: the first half of `check_image`, with the same arguments.

    Pixels are decoded only to rotate an image upright, to check a gain map, or to find out whether a JPEG
    without an end marker is complete.

    Raises UnsupportedImage if the format is not allowed, TooManyPixels if the image exceeds the limits, and
    UndecodableImage if it is damaged.
    """
    format = sniff_format(data, limits.formats)
    with decoder_errors():
        survey = PARSERS[format.name](data, limits)
        before_decoding(survey.pixels)
        if survey.missing_end and format.name == "jpeg":
            check_jpeg_without_end_marker(data, (survey.width, survey.height))
        complete = data + survey.missing_end
        if not limits.strip_metadata:
            return CleanedImage(complete, format, survey.width, survey.height, survey.frames)
        return _strip(complete, format, survey)


def decode_image(cleaned: CleanedImage, limits: ImageLimits) -> CheckedImage:
    """Decode every frame: the second half of `check_image`.

    Raises UndecodableImage if the image is damaged, or if its size differs from the size in the container.
    Raises TooManyPixels if `limits` are lower than those passed to `clean_image` and the image exceeds them.
    """
    size = cleaned.width, cleaned.height
    limits.check(size, cleaned.frames)
    info = decode(cleaned.data, cleaned.format, size, cleaned.frames)
    facts = info.width, info.height, info.frames, info.has_alpha, info.thumbhash
    return CheckedImage(cleaned.data, cleaned.format, *facts)


def _strip(data: bytes, format: ImageFormat, survey: Survey) -> CleanedImage:
    clean, width, height = survey.clean, survey.width, survey.height
    if survey.orientation != UPRIGHT:
        clean = rotate_upright(clean, format, survey.orientation, (width, height))
        if survey.orientation in SIDEWAYS_ORIENTATIONS:
            width, height = height, width
    if survey.gain_map is not None:
        clean = _with_gain_map(clean, format, survey.gain_map, survey.orientation)
    # If nothing changed, return the original object: memory then holds only one copy, and the sandbox
    # can compare the two immediately.
    return CleanedImage(data if clean == data else clean, format, width, height, survey.frames)


def _with_gain_map(picture: bytes, format: ImageFormat, gain_map: GainMap, orientation: int) -> bytes:
    """Return the picture with its gain map, which is rotated like the picture.

    If the gain map is damaged, return the picture without it.
    """
    clean, size = gain_map.clean, gain_map.size
    try:
        with decoder_errors():
            if orientation == UPRIGHT:
                decode(clean, format, size, 1)
            else:
                clean = rotate_upright(clean, format, orientation, size)
    except UndecodableImage:
        return picture
    return append_gain_map(picture, clean, gain_map)
