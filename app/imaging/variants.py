"""Make variants: the same image in another size, format or frame (see `app.core.variant_specs`).

This module depends on neither HTTP nor the store. The server calls it in a child process; see
`app.imaging.sandbox`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from app.core.errors import TooManyPixels
from app.core.object_metadata import ImageInfo
from app.core.variant_specs import SMART, VariantSpec
from app.imaging.geometry import CENTER, Layout, Point, gravity_point, lay_out
from app.imaging.pixels import flattened, to_srgb
from app.imaging.smart_crop import focus_of, sample_size
from app.imaging.source import Source, open_source
from app.imaging.survey import ImageLimits, Survey
from app.imaging.variant_encoders import ANIMATED_FORMATS, Animation, encode_animation, encode_still


@dataclass(frozen=True, slots=True)
class VariantRequest:
    """The variant to make. `format` is a name in `app.core.objects.FORMATS`.

    `max_pixels` limits width × height × frames of the result.
    """

    spec: VariantSpec
    format: str
    max_pixels: int


@dataclass(frozen=True, slots=True)
class MadeVariant:
    """A variant, and the width, height and number of frames of the image from which it was made.

    `width` and `height` are in pixels. `frames` is the number of frames drawn. In `data`, it may be lower,
    since encoders merge frames that look the same. `is_flattened` is whether only the first frame of an
    animation was kept because all of them would exceed `max_pixels`. It is false if the spec asks for one
    frame or the format has only one.
    """

    data: bytes
    width: int
    height: int
    frames: int
    is_flattened: bool
    source_size: tuple[int, int]
    source_frames: int


def _ignore(pixels: int) -> None:
    pass


def make_variant(
    data: bytes,
    request: VariantRequest,
    limits: ImageLimits,
    *,
    before_decoding: Callable[[int], None] = _ignore,
) -> MadeVariant:
    """Return the variant of the image in `data` that is requested.

    `limits` apply to the image. `before_decoding` is called with the number of pixels to decode and to
    encode, in all frames, before a decoder runs.

    Raises UnsupportedImage if the format of the image is not allowed, TooManyPixels if the image or the
    variant exceeds the limits, and UndecodableImage if the image is damaged.
    """

    def announce(survey: Survey) -> None:
        before_decoding(survey.pixels + _most_pixels(request, survey))

    with open_source(data, limits, announce) as source:
        layout = lay_out(request.spec, source.size)
        pixels = layout.canvas[0] * layout.canvas[1]
        if pixels > request.max_pixels:
            raise TooManyPixels(
                f"The variant has too many pixels: {layout.canvas[0]:,} × {layout.canvas[1]:,} = {pixels:,};"
                f" the limit is {request.max_pixels:,}. Use a smaller width."
            )
        is_animated = source.frames > 1 and request.format in ANIMATED_FORMATS and not request.spec.still
        fits = pixels * source.frames <= request.max_pixels
        focus = _focus(source, request.spec, layout)
        layout = lay_out(request.spec, source.size, focus)
        source.draft(layout.region, layout.size)
        if is_animated and fits:
            return _animation(source, request, layout)
        picture = _picture(source, request, layout, 0)
        encoded = encode_still(picture, request.format, request.spec)
        return MadeVariant(encoded, *layout.canvas, 1, is_animated, source.size, source.frames)


def describe_image(
    data: bytes, limits: ImageLimits, *, before_decoding: Callable[[int], None] = _ignore
) -> ImageInfo:
    """Return the facts about the image in `data`. Only its first frame is decoded.

    `before_decoding` is called with the number of pixels in all frames before a decoder runs. Raises what
    `make_variant` raises.
    """
    with open_source(data, limits, lambda survey: before_decoding(survey.pixels)) as source:
        source.draft((0, 0, *source.size), sample_size(source.size))
        source.load()
        return source.info()


def _most_pixels(request: VariantRequest, survey: Survey) -> int:
    """Return the maximum number of pixels of the result, whatever the orientation of the image is."""
    sides = survey.width, survey.height
    canvases = [lay_out(request.spec, size).canvas for size in (sides, sides[::-1])]
    return min(request.max_pixels, survey.frames * max(width * height for width, height in canvases))


def _focus(source: Source, spec: VariantSpec, layout: Layout) -> Point:
    if spec.fit != "cover":
        return CENTER
    if spec.gravity != SMART:
        return gravity_point(spec)
    # The picture is decoded at the resolution that the crop will need.
    source.draft(layout.region, layout.size)
    return focus_of(source.frame(0, (0, 0, *source.size), sample_size(source.size)), layout.size)


def _picture(source: Source, request: VariantRequest, layout: Layout, index: int) -> Image.Image:
    """Return a frame of the variant, in mode L, LA, RGB or RGBA, or also in YCbCr if the format is JPEG.

    For JPEG, a faster filter is used. At a slightly higher quality, the files are as large as with the better
    filter, and look the same.
    """
    spec = request.spec
    filter = Image.Resampling.BICUBIC if request.format == "jpeg" else Image.Resampling.LANCZOS
    picture = to_srgb(source.frame(index, layout.region, layout.size, filter), source.profile)
    is_padded = spec.fit == "pad"
    if is_padded or request.format == "jpeg":
        picture = flattened(picture, spec.background)
    if picture.mode == "YCbCr" and (is_padded or request.format != "jpeg"):
        picture = picture.convert("RGB")
    if not is_padded:
        return picture
    canvas = Image.new("RGB", layout.canvas, f"#{spec.background}")
    canvas.paste(picture, layout.offset)
    return canvas


def _animation(source: Source, request: VariantRequest, layout: Layout) -> MadeVariant:
    first = _picture(source, request, layout, 0)

    def draw(index: int) -> Image.Image:
        return first if index == 0 else _picture(source, request, layout, index)

    animation = Animation(
        draw,
        lambda: source.duration,
        layout.canvas,
        source.frames,
        source.plays,
        has_alpha=source.may_have_alpha and request.spec.fit != "pad",
    )
    encoded = encode_animation(animation, request.format, request.spec)
    return MadeVariant(encoded, *layout.canvas, source.frames, False, source.size, source.frames)
