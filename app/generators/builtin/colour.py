"""Arithmetic on colours."""

from colorsys import hsv_to_rgb, rgb_to_hsv

Colour = tuple[int, int, int]
"""Red, green and blue, 0…255 each."""

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)


def hex_colour(text: str) -> Colour:
    """The colour written as six hexadecimal digits."""
    red, green, blue = bytes.fromhex(text)
    return red, green, blue


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` with a `share` (0…1) of `b` in it."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def multiply(a: Colour, b: Colour) -> Colour:
    """How a surface of colour `a` looks under light of colour `b`."""
    red, green, blue = (x * y // 255 for x, y in zip(a, b, strict=True))
    return red, green, blue


def brightness(colour: Colour) -> float:
    """How bright the eye finds the colour, 0…1 (Rec. 601 luma)."""
    red, green, blue = colour
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def adjust(colour: Colour, turn: float = 0.0, saturation: float = 1.0, value: float = 1.0) -> Colour:
    """The colour with its hue turned (in whole circles) and its saturation and value multiplied."""
    hue, old_saturation, old_value = rgb_to_hsv(*(channel / 255 for channel in colour))
    parts = hsv_to_rgb((hue + turn) % 1.0, min(1.0, old_saturation * saturation), min(1.0, old_value * value))
    red, green, blue = (round(part * 255) for part in parts)
    return red, green, blue


def tint(colour: Colour, towards: Colour, strength: float) -> Colour:
    """The colour moved to the hue of `towards`, about as bright as it was."""
    light, target = brightness(colour), brightness(towards)
    if light < target:
        same = mix(BLACK, towards, light / target)
    else:
        same = mix(towards, WHITE, (light - target) / max(1e-6, 1 - target))
    return mix(colour, same, strength)
