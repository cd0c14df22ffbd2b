"""Read an image from which a variant is made: the facts about it, and its frames at a reduced size.

The structure of the file is checked as for uploads, and incomplete frames are refused, too. But a large
picture is never converted or rotated as a whole. It is reduced first: by libjpeg while it decodes, and
otherwise in bands of rows.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from PIL import Image, ImageFile

from app.core.object_metadata import ImageInfo
from app.core.objects import ImageFormat
from app.imaging.check import PARSERS
from app.imaging.decode import decoder_errors, first_frame, open_image, shown_orientation
from app.imaging.geometry import Box, Size, to_stored
from app.imaging.gif_frames import GifCanvas
from app.imaging.pixels import (
    TRANSPOSITIONS,
    has_transparency,
    premultiplied,
    straight,
    to_eight_bits,
)
from app.imaging.sniff import sniff_format
from app.imaging.survey import SIDEWAYS_ORIENTATIONS, ImageLimits, Survey
from app.imaging.thumbhash import thumbhash

_CHROMA_FILTER = Image.Resampling.HAMMING
"""A faster filter for the colours of a JPEG, which have half the resolution before and mostly afterwards."""
_GAP = 1.5
"""How much larger than the result a picture must be when it is reduced with a simple filter before. The
result then looks as if it had been resized in one step."""
_FILTER_SUPPORT = 3
"""How many pixels of the result a filter reaches in each direction. Lanczos reaches farthest."""
_PLAIN_MODES = ("L", "RGB", "CMYK")
_BAND_PIXELS = 1 << 20
"""Number of pixels of the source that are converted at a time."""

_JPEG_SCALES = (8, 4, 2)
"""The factors by which libjpeg can reduce a picture while it decodes."""


class Source:
    """An image that is open for reading. `size` is its width and height in pixels, upright.

    `frames` is the number of frames that viewers show. `orientation` is the EXIF orientation of the stored
    pixels, and `profile` is the colour profile, or empty.
    """

    def __init__(self, image: ImageFile.ImageFile, format: ImageFormat, survey: Survey) -> None:
        self.format = format
        self._image = image
        self._loaded: Image.Image = image
        self._survey = survey
        self._first = first_frame(image)
        is_animated_gif = format.name == "gif" and survey.frames > 1
        self._canvas = GifCanvas(survey.clean, (survey.width, survey.height)) if is_animated_gif else None
        self.frames = survey.frames - self._first
        self.orientation = max(survey.orientation, shown_orientation(image))
        sides = survey.width, survey.height
        self.size = sides[::-1] if self.orientation in SIDEWAYS_ORIENTATIONS else sides
        self.profile: bytes = image.info.get("icc_profile") or b""

    @property
    def plays(self) -> int:
        """How many times an animation is played. 0 stands for endlessly.

        The decoder of AVIF does not report it; most of such files are played endlessly.
        """
        if self.format.name != "gif":
            return int(self._image.info.get("loop", 0))
        # GIF files say how many times the animation is repeated after it was played.
        repeats = self._image.info.get("loop")
        return 1 if repeats is None else repeats + 1 if repeats else 0

    @property
    def duration(self) -> float:
        """The time in milliseconds for which the frame that was loaded last is shown."""
        return float(self._canvas.duration if self._canvas else self._image.info.get("duration", 0))

    @property
    def may_have_alpha(self) -> bool:
        """Whether any frame may have transparent pixels, as far as is known after the first was loaded."""
        if self._canvas is not None:
            return has_transparency(self._loaded) or self._canvas.can_become_clear
        return self._loaded.has_transparency_data

    def draft(self, region: Box, size: Size) -> None:
        """Have the pixels decoded at a lower resolution, if the format supports it.

        `region` and `size` are those that will be passed to `frame`. Call this before any frame is loaded.
        """
        if self.format.name == "jpeg":
            target = size[::-1] if self.orientation in SIDEWAYS_ORIENTATIONS else size
            stored = to_stored(region, self.size, self.orientation)
            wanted = min(_ratio(stored, target)) / _GAP
            scale = next((each for each in _JPEG_SCALES if each <= wanted), 1)
            width, height = self._image.size
            mode = "YCbCr" if _has_standard_colours(self._image) else None
            self._image.draft(mode, (max(1, width // scale), max(1, height // scale)))

    def load(self, index: int = 0) -> Image.Image:
        """Decode a frame, and return it as it is stored. Frames must be loaded in their order."""
        if self._canvas is not None:
            self._loaded = self._canvas.draw(index)
            return self._loaded
        image = self._image
        if image.tell() != index + self._first:
            image.seek(index + self._first)
        image.load()
        return image

    def frame(
        self, index: int, region: Box, size: Size, filter: Image.Resampling = Image.Resampling.LANCZOS
    ) -> Image.Image:
        """Return the `region` of a frame, resized to `size` with `filter`, and upright.

        The result is in one of the modes L, LA, RGB, RGBA, CMYK and YCbCr.
        """
        image = self.load(index)
        stored_size = self._survey.width, self._survey.height
        stored = to_stored(region, self.size, self.orientation)
        # After `draft`, the picture is smaller than the container says.
        scales = [min(1, have / declared) for have, declared in zip(image.size, stored_size, strict=True)]
        box = (stored[0] * scales[0], stored[1] * scales[1], stored[2] * scales[0], stored[3] * scales[1])
        target = size[::-1] if self.orientation in SIDEWAYS_ORIENTATIONS else size
        resized = _resize(image, box, target, filter)
        method = TRANSPOSITIONS.get(self.orientation)
        return resized if method is None else resized.transpose(method)

    def info(self) -> ImageInfo:
        """Return the facts about the image. The first frame must be the one that was loaded last."""
        return ImageInfo(
            *self.size,
            self._survey.frames,
            has_transparency(self._loaded),
            thumbhash(self._loaded, self.orientation),
        )


@contextmanager
def open_source(
    data: bytes, limits: ImageLimits, before_decoding: Callable[[Survey], None]
) -> Iterator[Source]:
    """Check the structure of the image in `data` as for an upload, and open it.

    `before_decoding` is called with the survey before a decoder runs. Raises UnsupportedImage if the format
    is not allowed, TooManyPixels if the image exceeds the limits, and UndecodableImage if it is damaged, or
    if the body of the `with` statement raises an error that a decoder may raise.
    """
    format = sniff_format(data, limits.formats)
    with decoder_errors():
        # Metadata of a JPEG does no harm, and removing it would mean copying the file several times.
        strips = format.name != "jpeg"
        survey = PARSERS[format.name](data, replace(limits, strip_metadata=strips))
        before_decoding(survey)
        complete = survey.clean if strips else data + survey.missing_end
        # Don't keep a second copy in memory if nothing was removed.
        survey = replace(survey, clean=data if complete == data else complete)
        del complete
        with open_image(survey.clean, format, (survey.width, survey.height)) as image:
            yield Source(image, format, survey)


def _has_standard_colours(image: ImageFile.ImageFile) -> bool:
    """Return whether a JPEG stores its colours as YCbCr, according to the rules of libjpeg."""
    return image.mode == "RGB" and ("jfif_density" in image.info or image.info.get("adobe_transform") == 1)


def _ratio(box: Box, target: Size) -> tuple[float, float]:
    return (box[2] - box[0]) / target[0], (box[3] - box[1]) / target[1]


def _resize(image: Image.Image, box: Box, target: Size, filter: Image.Resampling) -> Image.Image:
    """Return the part of the picture in `box` with the size `target`, in 8 bits."""
    if image.mode == "YCbCr":
        bands = zip(image.split(), (filter, _CHROMA_FILTER, _CHROMA_FILTER), strict=True)
        resized = [band.resize(target, each, box, reducing_gap=_GAP) for band, each in bands]
        return Image.merge("YCbCr", resized)
    across, down = (max(1, int(ratio / _GAP)) for ratio in _ratio(box, target))
    if (across, down) == (1, 1):
        return straight(_resized_in_stripes(image, box, target, filter))
    if image.mode in _PLAIN_MODES and not image.has_transparency_data:
        return image.resize(target, filter, box, reducing_gap=_GAP)
    left, top = math.floor(box[0]), math.floor(box[1])
    reduced = _reduced(image, (left, top, math.ceil(box[2]), math.ceil(box[3])), (across, down))
    inner = (
        *((box[0] - left) / across, (box[1] - top) / down),
        *((box[2] - left) / across, (box[3] - top) / down),
    )
    return straight(reduced.resize(target, filter, inner))


def _resized_in_stripes(image: Image.Image, box: Box, target: Size, filter: Image.Resampling) -> Image.Image:
    """Return the part of the picture in `box`, resized, in 8 bits with premultiplied alpha.

    The result is made in stripes of rows, so that there is never a converted copy of the whole picture. Each
    is made from a few rows more than it shows, so that the filter sees the same pixels.
    """
    ratio = _ratio(box, target)
    margins = [math.ceil(_FILTER_SUPPORT * max(1, each)) + 1 for each in ratio]
    left, right = max(0, math.floor(box[0]) - margins[0]), min(image.width, math.ceil(box[2]) + margins[0])
    rows = max(1, int(_BAND_PIXELS / ((right - left) * max(1, ratio[1]))))
    whole: Image.Image | None = None
    for start in range(0, target[1], rows):
        end = min(start + rows, target[1])
        edges = box[1] + start * ratio[1], box[1] + end * ratio[1]
        top = max(0, math.floor(edges[0]) - margins[1])
        bottom = min(image.height, math.ceil(edges[1]) + margins[1])
        band = premultiplied(to_eight_bits(image.crop((left, top, right, bottom))))
        inner = box[0] - left, edges[0] - top, box[2] - left, min(edges[1] - top, float(band.height))
        stripe = band.resize((target[0], end - start), filter, inner)
        if end - start == target[1]:
            return stripe
        if whole is None:
            whole = Image.new(stripe.mode, target)
        whole.paste(stripe, (0, start))
    assert whole is not None
    return whole


def _reduced(image: Image.Image, box: tuple[int, int, int, int], factors: tuple[int, int]) -> Image.Image:
    """Return the part of the picture in `box`, reduced by whole factors, in 8 bits with premultiplied alpha.

    The source is converted in bands, so that there is never a converted copy of the whole picture.
    """
    left, top, right, bottom = box
    rows = max(1, _BAND_PIXELS // (right - left) // factors[1]) * factors[1]
    size = -(-(right - left) // factors[0]), -(-(bottom - top) // factors[1])
    whole: Image.Image | None = None
    for start in range(top, bottom, rows):
        band = premultiplied(to_eight_bits(image.crop((left, start, right, min(start + rows, bottom)))))
        reduced = band.reduce(factors)
        if whole is None:
            whole = Image.new(reduced.mode, size)
        whole.paste(reduced, (0, (start - top) // factors[1]))
    assert whole is not None
    return whole
