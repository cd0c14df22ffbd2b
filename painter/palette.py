"""The colours of a picture. They depend on the time of day, the weather, the mood, and the colours that the
prompt names."""

from collections.abc import Callable
from colorsys import hsv_to_rgb, rgb_to_hsv
from dataclasses import dataclass, replace
from random import Random

from painter.prompt import Scene

Colour = tuple[int, int, int]
"""Red, green and blue, each in 0…255."""

WHITE: Colour = (255, 255, 255)

BLACK: Colour = (0, 0, 0)

NAMED: dict[str, Colour] = {
    "red": (205, 44, 44),
    "orange": (240, 132, 44),
    "yellow": (246, 208, 70),
    "gold": (232, 176, 74),
    "green": (74, 150, 92),
    "teal": (32, 152, 156),
    "blue": (48, 104, 190),
    "purple": (124, 76, 168),
    "pink": (238, 130, 168),
    "brown": (140, 98, 66),
    "white": (236, 236, 236),
    "black": (34, 34, 40),
}
"""The colours that a prompt can name, keyed by tag."""

GROUND_COLOURS: dict[str, Colour] = {
    "rock": (104, 118, 142),
    "grass": (112, 154, 76),
    "pine": (44, 84, 66),
    "sand": (228, 170, 104),
    "ash": (86, 74, 78),
    "tower": (92, 104, 130),
    "snow": (238, 244, 252),
    "autumn": (196, 106, 48),
    "spring": (150, 184, 98),
}
"""The colours that the ground, trees and buildings have in white light. The last three are mixed with the
other colours in winter, autumn and spring."""


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a scene.

    `sky` contains the colours of the sky from the zenith to the horizon. `light` is the colour of the sun or
    moon, `glow` is the colour of the air around the sun or moon, and `ambient` is the colour of the light on
    the ground. `shadow` is the darkest colour.
    """

    sky: tuple[Colour, ...]
    light: Colour
    glow: Colour
    ambient: Colour
    shadow: Colour

    @property
    def haze(self) -> Colour:
        """Return the colour into which distant things fade."""
        return mix(self.sky[-1], self.sky[-2], 0.45)

    def lit(self, local: Colour, distance: float) -> Colour:
        """Return the apparent colour of a surface. `distance` ranges from 0 (near) to 1 (all haze)."""
        return mix(multiply(local, self.ambient), self.haze, distance)

    def map(self, change: Callable[[Colour], Colour]) -> "Palette":
        """Return the palette with `change` applied to every colour."""
        return Palette(
            tuple(change(colour) for colour in self.sky),
            *(change(colour) for colour in (self.light, self.glow, self.ambient, self.shadow)),
        )


def choose_palette(scene: Scene, rng: Random) -> Palette:
    """Return the palette of a scene.

    One of the palettes for the time of day is chosen at random, and its hue is shifted slightly. The palette
    is then adjusted for the weather, the colours that the prompt names, and the mood.
    """
    palette = rng.choice(_BY_TIME[scene.time])
    hue_shift = rng.uniform(-0.018, 0.018)
    palette = palette.map(lambda colour: adjust(colour, hue_shift))
    return _adjust_for_mood(_adjust_for_named_colours(_adjust_for_weather(palette, scene), scene), scene)


def _adjust_for_weather(palette: Palette, scene: Scene) -> Palette:
    if scene.has("storm"):
        return palette.map(lambda colour: adjust(colour, saturation=0.6, value=0.68))
    if scene.has("rain"):
        return palette.map(lambda colour: adjust(colour, saturation=0.55, value=0.84))
    if scene.has("fog"):
        pale = mix(palette.haze, NAMED["orange"] if scene.has("autumn") else WHITE, 0.2)
        return replace(palette, sky=tuple(mix(colour, pale, 0.55) for colour in palette.sky))
    return palette


def _adjust_for_named_colours(palette: Palette, scene: Scene) -> Palette:
    colours = [NAMED[name] for name in scene.colours]
    if not colours:
        return palette
    strength = 0.2 if scene.has_any("house", "balloon", "boat", "flowers") or _is_natural(scene) else 0.72
    top, low = colours[0], colours[-1]
    last = len(palette.sky) - 1
    return Palette(
        sky=tuple(tint(c, mix(top, low, (i / last) ** 1.5), strength) for i, c in enumerate(palette.sky)),
        light=tint(palette.light, low, strength * 0.4),
        glow=tint(palette.glow, low, strength),
        ambient=tint(palette.ambient, top, strength * 0.8),
        shadow=tint(palette.shadow, top, strength * 0.8),
    )


def _is_natural(scene: Scene) -> bool:
    """Return whether the subject has the named colours in nature, as in "a green meadow".

    If it does, the named colours tint the palette only slightly. In "a purple meadow", the tint is strong.
    """
    return scene.colours in _NATURAL.get(scene.subject, ())


def _adjust_for_mood(palette: Palette, scene: Scene) -> Palette:
    if scene.has("pastel"):
        return palette.map(lambda colour: mix(adjust(colour, saturation=0.75), WHITE, 0.3))
    if scene.has("neon"):
        return palette.map(lambda colour: adjust(colour, hue_shift=0.02, saturation=1.6))
    return palette


def accent(scene: Scene, default: Colour) -> Colour:
    """Return the first named colour that is not too dark, or `default` if there is none.

    This colour is for a single bright object in the picture, such as a sail.
    """
    bright = [NAMED[name] for name in scene.colours if brightness(NAMED[name]) > 0.15]
    return bright[0] if bright else default


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Return a mixture of two colours. `share` is the fraction of `b` in the mixture, from 0 to 1."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def multiply(a: Colour, b: Colour) -> Colour:
    """Return the apparent colour of a surface of colour `a` under light of colour `b`."""
    red, green, blue = (x * y // 255 for x, y in zip(a, b, strict=True))
    return red, green, blue


def brightness(colour: Colour) -> float:
    """Return the perceived brightness of the colour, from 0 to 1 (Rec. 601 luma)."""
    red, green, blue = colour
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def adjust(colour: Colour, hue_shift: float = 0.0, saturation: float = 1.0, value: float = 1.0) -> Colour:
    """Return the colour with a different hue, saturation and value (HSV).

    `hue_shift` is added to the hue, as a fraction of the colour circle. The saturation and the value are
    multiplied by `saturation` and `value`.
    """
    hue, old_saturation, old_value = rgb_to_hsv(*(channel / 255 for channel in colour))
    parts = hsv_to_rgb(
        (hue + hue_shift) % 1.0, min(1.0, old_saturation * saturation), min(1.0, old_value * value)
    )
    red, green, blue = (round(part * 255) for part in parts)
    return red, green, blue


def tint(colour: Colour, towards: Colour, strength: float) -> Colour:
    """Return the colour, shifted towards the hue of `towards` without changing its brightness much."""
    light, target = brightness(colour), brightness(towards)
    if light < target:
        same = mix(BLACK, towards, light / target)
    else:
        same = mix(towards, WHITE, (light - target) / max(1e-6, 1 - target))
    return mix(colour, same, strength)


def _palette(sky: str, light: str, glow: str, ambient: str, shadow: str) -> Palette:
    """Return a palette of colours in hexadecimal. `sky` contains several colours, separated by spaces."""
    stops = tuple(_from_hex(text) for text in sky.split())
    return Palette(stops, _from_hex(light), _from_hex(glow), _from_hex(ambient), _from_hex(shadow))


def _from_hex(text: str) -> Colour:
    red, green, blue = bytes.fromhex(text)
    return red, green, blue


_BY_TIME: dict[str, tuple[Palette, ...]] = {
    "sunset": (
        _palette("2a2f63 6d4a86 c9607a f59668 ffcf8a", "fff0c4", "ff9a55", "8a5f7a", "1c1433"),
        _palette("1f3b63 4f6a8e c58a86 f4a261 ffdc9c", "fff3d0", "ff9f4a", "80647a", "181a33"),
        _palette("3b1f4f 87365f d9485f f77f5a ffc27a", "ffe9bd", "ff7a4f", "84506e", "1f0f2b"),
    ),
    "dawn": (
        _palette("5b7bb4 94a2cb d3b4cd f6c4b8 ffe6c2", "fff8e2", "ffd2a6", "b4aac6", "2c3355"),
        _palette("4f86a8 86b3c2 bfd0c8 f3d7b6 ffeccb", "fffae6", "ffdca0", "aab4be", "253a4c"),
    ),
    "day": (
        _palette("2c74bd 5a9dd6 8fc3e8 c2e0f2 e6f3f6", "fffdf0", "fff4cf", "f6f0e4", "21405c"),
        _palette("2a86b0 5cabc8 97cbd8 cbe5e4 f2f4e6", "fffdf0", "fff0c0", "f4efe0", "1d4652"),
    ),
    "dusk": (
        _palette("141c44 2f3870 66528f b3749c eaa59a", "fff2dc", "e58a94", "565686", "0e1028"),
        _palette("132a45 2b4c6b 5f7088 b0888c e8b395", "fff2dc", "e09a80", "56627e", "0b1626"),
    ),
    "night": (
        _palette("050a1f 0b1738 152b56 24477a 3f6c98", "f4f4e6", "8fb4dc", "2c426c", "040816"),
        _palette("080a22 121a42 22305f 38508a 5a78a8", "f6f2e2", "9cb0e0", "343f70", "060717"),
    ),
}

_NATURAL = {
    "meadow": (("green",),),
    "forest": (("green",),),
    "desert": (("gold",), ("yellow",)),
    "sea": (("blue",),),
    "island": (("blue",),),
    "mountains": (("white",), ("blue",)),
}
"""The combinations of named colours that each subject has in nature."""
