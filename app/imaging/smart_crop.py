"""Find the part of a picture that draws the eye, for crops with the gravity `smart`.

The picture is reduced to at most 100 pixels. There, each pixel counts by how much it differs from its
neighbours and by how saturated its colour is. Since a crop always touches two opposite edges of the picture,
only its position in the other direction needs to be found: the window with the highest sum.
"""

from itertools import accumulate

from PIL import Image, ImageChops, ImageFilter

from app.imaging.geometry import Point, Size
from app.imaging.pixels import flattened, to_eight_bits

_SIDE = 100
_MID_GREY = "808080"
"""The background under transparent pixels, so that they don't stand out."""
_SATURATION_WEIGHT = 0.3
"""How much full saturation counts, compared with the strongest edge."""


def focus_of(picture: Image.Image, window: Size) -> Point:
    """Return the centre of the window that draws the eye most, in 0…1 of both sides.

    `window` has the ratio of the crop. If several windows are equal, the one closest to the centre is chosen.
    """
    width, height = picture.size
    energy = _energy(picture)
    if width * window[1] > height * window[0]:
        share = window[0] * height / (window[1] * width)
        return _best_centre(_profile(energy, (energy.width, 1)), share), 0.5
    share = window[1] * width / (window[0] * height)
    return 0.5, _best_centre(_profile(energy, (1, energy.height)), share)


def sample_size(size: Size) -> Size:
    """Return the size of the picture to pass to `focus_of`, for an image of this size."""
    scale = min(1, _SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _energy(picture: Image.Image) -> Image.Image:
    """Return the energy of each pixel, in mode L."""
    colours = flattened(to_eight_bits(picture), _MID_GREY).convert("RGB")
    # The filter leaves the outermost pixels unchanged, so they are added before and cut off afterwards.
    grey = colours.convert("L")
    framed = grey.resize((grey.width + 2, grey.height + 2), Image.Resampling.NEAREST)
    framed.paste(grey, (1, 1))
    edges = framed.filter(ImageFilter.FIND_EDGES).crop((1, 1, grey.width + 1, grey.height + 1))
    # Black and white pixels may have any saturation in HSV. The difference between the bands is more stable.
    red, green, blue = colours.split()
    highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
    saturation = ImageChops.subtract(highest, lowest, 1 / _SATURATION_WEIGHT)
    return ImageChops.add(edges, saturation)


def _profile(energy: Image.Image, size: Size) -> list[int]:
    """Return the average energy of each column or row, multiplied by 255."""
    return list(energy.resize(size, Image.Resampling.BOX).tobytes())


def _best_centre(profile: list[int], share: float) -> float:
    """Return the centre of the best window, in 0…1. The window is `share` as long as the profile."""
    length = max(1, round(share * len(profile)))
    sums = [0, *accumulate(profile)]
    middle = (len(profile) - length) / 2
    start = max(
        range(len(profile) - length + 1),
        key=lambda at: (sums[at + length] - sums[at], -abs(at - middle), -at),
    )
    return (start + length / 2) / len(profile)
