"""An abstract picture: flowing sheets of colour, like cut paper, each casting a soft shadow."""

from PIL import ImageChops, ImageFilter

from app.generators.builtin.colour import WHITE, Colour, adjust, mix
from app.generators.builtin.land import paint_layer, silhouette
from app.generators.builtin.noise import Line, rolling_line
from app.generators.builtin.palette import NAMED
from app.generators.builtin.picture import Picture, ramp

_SHEETS = 9


def paint_abstract(picture: Picture) -> None:
    """The whole picture, from the sheet at the back to the one in front."""
    colours = _colours(picture)
    picture.image.paste(ramp((mix(colours[0], WHITE, 0.55), mix(colours[0], WHITE, 0.15)), picture.size))
    picture.shine(picture.halo((picture.sun[0], picture.height * 0.1), picture.unit * 0.7), WHITE, 0.5)
    for index in range(_SHEETS):
        _sheet(picture, index, _along(colours, index / (_SHEETS - 1)))


def _colours(picture: Picture) -> list[Colour]:
    named = [NAMED[name] for name in picture.scene.colours]
    if not named:
        return [*reversed(picture.palette.sky), picture.palette.shadow]
    if len(named) == 1:
        return [mix(named[0], WHITE, 0.5), named[0], adjust(named[0], turn=0.06, value=0.5)]
    return [*named, adjust(named[0], value=0.45)]


def _along(colours: list[Colour], place: float) -> Colour:
    at = place * (len(colours) - 1)
    index = min(int(at), len(colours) - 2)
    return mix(colours[index], colours[index + 1], at - index)


def _sheet(picture: Picture, index: int, colour: Colour) -> None:
    line = rolling_line(picture.rng(f"sheet {index}"), 2, 0.25)
    base, swing = picture.height * (0.2 + 0.78 * index / _SHEETS), 0.34 * picture.unit
    rise = 0.12 * picture.unit * (1 if picture.light_from_left else -1)
    unit = picture.unit

    def crest(x: float) -> float:
        return base + rise * picture.span(x) - swing * (line(picture.span(x) * 1.3 + index * 0.21) - 0.5)

    _shadow(picture, crest)
    paint_layer(picture, crest, mix(colour, WHITE, 0.16), adjust(colour, value=0.82), unit * 0.34)
    rim = ImageChops.subtract(
        silhouette(picture, crest), silhouette(picture, lambda x: crest(x) + unit * 0.0025)
    )
    picture.lay(rim, WHITE, 0.3)


def _shadow(picture: Picture, crest: Line) -> None:
    mask = silhouette(picture, lambda x: crest(x) - picture.unit * 0.012)
    picture.lay(mask.filter(ImageFilter.GaussianBlur(picture.unit * 0.016)), picture.palette.shadow, 0.42)
