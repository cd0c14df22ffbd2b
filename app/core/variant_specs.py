"""Variant specs: the words in a URL that say which variant of an image to make.

A spec consists of words that are separated by commas:

    w640, h480                  size in pixels; one of them keeps the ratio, both make a box
    contain, cover, pad         fit into the box (default), fill it and crop, or fit and fill the rest
    center, north … southeast, smart, fp0.5x0.3
                                the part to keep when cropping: a side, the part that draws the eye, or a
                                focal point in 0…1
    bg112233                    background under `pad`, and under transparency if the format has none
    q80                         quality, 40…95
    still                       only the first frame of an animation

Each spec has one canonical spelling, `str(spec)`: lower case, in the order above, without leading zeros, and
without words that change nothing. So each variant has one URL and one file.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from app.core.errors import InvalidVariant

MAX_SIDE = 16_383
"""Maximum width and height of a variant in pixels: the maximum of WebP
(https://developers.google.com/speed/webp/docs/riff_container)."""

MAX_SPEC_LENGTH = 100

FITS = ("contain", "cover", "pad")
SIDES = ("center", "north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
SMART = "smart"
MIN_QUALITY, MAX_QUALITY = 40, 95
WHITE = "ffffff"

_SIZE = re.compile(r"([wh])0*([1-9][0-9]{0,4})", re.ASCII)
_FOCAL_POINT = re.compile(r"fp([01]?(?:\.[0-9]{1,6})?)x([01]?(?:\.[0-9]{1,6})?)", re.ASCII)
_BACKGROUND = re.compile(r"bg([0-9a-f]{6})", re.ASCII)
_QUALITY = re.compile(r"q0*([1-9][0-9]?)", re.ASCII)

_WORDS = (
    "Use words such as w640, h480, contain, cover, pad, center, north, smart, fp0.5x0.3, bg112233, q80 and "
    f"still, each kind at most once, separated by commas. w and h are at most {MAX_SIDE}, q is from "
    f"{MIN_QUALITY} to {MAX_QUALITY}, and fp from 0 to 1."
)


@dataclass(frozen=True, slots=True)
class VariantSpec:
    """The size and the treatment of a variant. Its format is not part of the spec.

    - `width`, `height`: in pixels; 0 if not specified.
    - `fit`: one of `FITS`.
    - `gravity`: one of `SIDES`, `smart`, or a focal point such as `fp0.5x0.3`.
    - `background`: six hexadecimal digits.
    - `quality`: from `MIN_QUALITY` to `MAX_QUALITY`, or 0 for the default of the format.
    - `still`: whether to keep only the first frame of an animation.
    """

    width: int = 0
    height: int = 0
    fit: str = "contain"
    gravity: str = "center"
    background: str = WHITE
    quality: int = 0
    still: bool = False

    def __str__(self) -> str:
        """Return the canonical spelling."""
        spec = self._normalized()
        words = (
            f"w{spec.width}" if spec.width else "",
            f"h{spec.height}" if spec.height else "",
            spec.fit if spec.fit != "contain" else "",
            spec.gravity if spec.gravity != "center" else "",
            f"bg{spec.background}" if spec.background != WHITE else "",
            f"q{spec.quality}" if spec.quality else "",
            "still" if spec.still else "",
        )
        return ",".join(filter(None, words))

    def focal_point(self) -> tuple[float, float] | None:
        """Return the focal point as fractions of the width and the height, or None if there is none."""
        found = _FOCAL_POINT.fullmatch(self.gravity)
        return None if found is None else (float(found[1]), float(found[2]))

    def _normalized(self) -> "VariantSpec":
        """Return the spec with the defaults in place of words that change nothing."""
        fit = self.fit if self.width and self.height else "contain"
        gravity = self.gravity if fit == "cover" and self.gravity != "fp0.5x0.5" else "center"
        is_normal = (fit, gravity) == (self.fit, self.gravity)
        return self if is_normal else replace(self, fit=fit, gravity=gravity)


@lru_cache(maxsize=1024)
def parse_spec(text: str) -> VariantSpec:
    """Return the spec that `text` stands for. It may be spelled differently than the canonical spelling.

    Raises `InvalidVariant` if a word is unknown or out of range, or if there are two words of a kind.
    """
    if len(text) > MAX_SPEC_LENGTH:
        raise InvalidVariant(f"The variant is too long. {_WORDS}")
    found: dict[str, object] = {}
    for word in text.lower().split(","):
        kind, value = _parse_word(word)
        if kind in found:
            raise InvalidVariant(f"The variant has two words of the same kind: {word!r:.40}. {_WORDS}")
        found[kind] = value
    spec = VariantSpec(**found)  # type: ignore[arg-type]
    return spec._normalized()


def _parse_word(word: str) -> tuple[str, object]:
    """Return the field of `VariantSpec` that the word sets, and its value."""
    if word in FITS:
        return "fit", word
    if word in SIDES or word == SMART:
        return "gravity", word
    if word == "still":
        return "still", True
    if (found := _SIZE.fullmatch(word)) and int(found[2]) <= MAX_SIDE:
        return {"w": "width", "h": "height"}[found[1]], int(found[2])
    if found := _BACKGROUND.fullmatch(word):
        return "background", found[1]
    if (found := _QUALITY.fullmatch(word)) and MIN_QUALITY <= int(found[1]) <= MAX_QUALITY:
        return "quality", int(found[1])
    if (found := _FOCAL_POINT.fullmatch(word)) and (point := _focal_point(found[1], found[2])):
        return "gravity", point
    raise InvalidVariant(f"The variant has a word that is unknown or out of range: {word!r:.40}. {_WORDS}")


def _focal_point(across: str, down: str) -> str:
    """Return the canonical focal point, or an empty string if a coordinate is missing or exceeds 1."""
    if not (across and down) or max(float(across), float(down)) > 1:
        return ""
    return "fp" + "x".join(f"{float(value):.3f}".rstrip("0").rstrip(".") for value in (across, down))
