"""How large an image may be, and the refusal of larger ones."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from app.errors import TooManyPixels, UndecodableImage

if TYPE_CHECKING:
    from app.config import Config  # not imported at run time: the decoder host stays small


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What uploads are held to.

    `formats` are names in `app.formats.FORMATS`; `max_pixels` bounds width × height × frames;
    with `strip_metadata` only what is needed to draw the image is stored.
    """

    formats: tuple[str, ...]
    max_pixels: int
    max_frames: int
    strip_metadata: bool

    @classmethod
    def from_config(cls, config: "Config") -> Self:
        """What the settings say."""
        return cls(
            config.allowed_formats, config.max_image_pixels, config.max_image_frames, config.strip_metadata
        )

    def check(self, size: tuple[int, int], frames: int) -> None:
        """Let `frames` frames of `size` (width, height in pixels) pass, or raise TooManyPixels.

        Raises UndecodableImage if nothing could be seen.
        """
        width, height = size
        if not (width and height and frames):
            raise UndecodableImage(detail=f"{frames} frames of {width} × {height}")
        pixels = width * height * frames
        if frames > self.max_frames:
            raise TooManyPixels(
                f"The animation has more frames than the {self.max_frames:,} that are allowed."
            )
        if pixels > self.max_pixels:
            times = f" × {frames:,} frames" if frames > 1 else ""
            raise TooManyPixels(
                f"The image has too many pixels: {width:,} × {height:,}{times} = {pixels:,};"
                f" the limit is {self.max_pixels:,}."
            )
