"""Encode variants: still pictures and animations, without metadata and colour profiles.

The default qualities look alike in all formats. Measured for a width of 640 pixels, from photos of 12
megapixels.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image

from app.core.errors import VariantFailed
from app.core.objects import FORMATS
from app.core.variant_specs import VariantSpec
from app.imaging.avif import without_metadata
from app.imaging.encode import for_gif
from app.imaging.survey import PartCounter

ANIMATED_FORMATS = {"avif", "gif", "png", "webp"}

_QUALITIES = {"jpeg": 80, "webp": 80, "avif": 50}

_OPTIONS: dict[str, dict[str, Any]] = {
    "jpeg": {"subsampling": "4:2:0"},
    "webp": {"method": 2},
    "avif": {"speed": 9, "max_threads": 1, "autotiling": False},
    "png": {"compress_level": 6},
    "gif": {},
}

_DISPOSE_TO_BACKGROUND = 2
_GIF_TIME_UNIT = 10
"""The unit of durations in a GIF, in milliseconds (section 23)."""


def encode_still(picture: Image.Image, format: str, spec: VariantSpec) -> bytes:
    """Return the picture as a file. Its mode must be L, LA, RGB or RGBA, or YCbCr if the format is JPEG.

    Raises UndecodableImage if the format can't hold the picture.
    """
    prepared = for_gif(picture) if format == "gif" else picture
    prepared.info = {key: value for key, value in prepared.info.items() if key == "transparency"}
    return _saved(prepared, format, _options(format, spec))


class Animation(Image.Image):
    """An animation whose frames are drawn one at a time, when an encoder loads them.

    `draw` returns a frame by its index, and is called in the order of the frames. `duration` returns for how
    many milliseconds the frame drawn last is shown. `plays` is how many times the animation is played, or 0
    for endlessly.
    """

    def __init__(
        self,
        draw: Callable[[int], Image.Image],
        duration: Callable[[], float],
        size: tuple[int, int],
        frames: int,
        plays: int,
        *,
        has_alpha: bool,
    ) -> None:
        super().__init__()
        self.n_frames = frames
        self.is_animated = True
        self.plays = plays
        self.has_alpha = has_alpha
        self.durations: list[int] = []
        self._elapsed = 0.0
        self.for_gif = self.is_eager = False
        self._draw, self._duration = draw, duration
        self._size = size
        self._mode = "RGBA" if has_alpha else "RGB"
        self._index, self._drawn = 0, -1

    def seek(self, frame: int) -> None:
        """Choose the frame to load. Raises EOFError if there is no such frame."""
        if not 0 <= frame < self.n_frames:
            raise EOFError
        self._index = frame
        if self.is_eager and frame > self._drawn:
            self.load()

    def tell(self) -> int:
        """Return the index of the chosen frame."""
        return self._index

    def load(self) -> Any:
        """Draw the chosen frame if it is not the one that was drawn last."""
        if self._drawn != self._index:
            frame = self._draw(self._index)
            self._drawn = self._index
            self._add_duration()
            frame = frame.convert("RGBA" if self.has_alpha else "RGB")
            if self.for_gif:
                frame = for_gif(frame)
                if "transparency" in frame.info:
                    self.info["transparency"] = frame.info["transparency"]
                self.palette = frame.palette
            self._mode = frame.mode
            self.im = frame.im
        return super().load()

    def _add_duration(self) -> None:
        """Record the duration of the frame, in whole units of the format, so that errors don't add up."""
        if self._index == 0:
            self._elapsed = 0.0
            self.durations.clear()
        before, self._elapsed = self._elapsed, self._elapsed + self._duration()
        unit = _GIF_TIME_UNIT if self.for_gif else 1
        self.durations.append(unit * (round(self._elapsed / unit) - round(before / unit)))
        self.info = {"duration": self.durations[-1]}


def encode_animation(animation: Animation, format: str, spec: VariantSpec) -> bytes:
    """Return the animation as a file. Encoders may merge consecutive frames that look the same.

    Raises UndecodableImage if the format can't hold the animation.
    """
    options = _options(format, spec) | {"save_all": True, "loop": animation.plays}
    if format == "gif":
        animation.for_gif = True
        # Otherwise, pixels that become transparent would keep their last colour.
        options["disposal"] = _DISPOSE_TO_BACKGROUND if animation.has_alpha else 0
        if animation.plays:
            options["loop"] = animation.plays - 1
        if animation.plays == 1:
            del options["loop"]
        animation.load()
    elif format in ("avif", "webp"):
        options["duration"] = animation.durations
        animation.is_eager = format == "avif"
    encoded = _saved(animation, format, options)
    # An animated AVIF contains the time at which it was made.
    return without_metadata(encoded, PartCounter()) if format == "avif" else encoded


def _options(format: str, spec: VariantSpec) -> dict[str, Any]:
    quality = spec.quality or _QUALITIES.get(format)
    return _OPTIONS[format] | ({"quality": quality} if quality and format in _QUALITIES else {})


def _saved(picture: Image.Image, format: str, options: dict[str, Any]) -> bytes:
    try:
        try:
            return _save(picture, format, options)
        except OSError:
            if format != "jpeg":
                raise
            # Pillow estimates the buffer size for optimized tables. For very noisy pictures, it is too small.
            return _save(picture, format, options | {"optimize": False})
    except (OSError, ValueError, SystemError) as error:
        message = (
            f"A variant of {picture.width} × {picture.height} pixels can't be encoded as {format}."
            " Use a different size or format."
        )
        raise VariantFailed(message, detail=repr(error)) from error


def _save(picture: Image.Image, format: str, options: dict[str, Any]) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, FORMATS[format].pillow, **options)
    return buffer.getvalue()
