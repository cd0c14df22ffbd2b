"""The last touches on a picture: light over all, vignette, film grain, black and white.

The built-in generator: a landscape painter that follows the words of the prompt.

The built-in generator, which paints without any AI model.
"""

from PIL import Image, ImageChops, ImageOps

from painter.canvas import Picture
from painter.grounds import GROUNDS, paint_abstract
from painter.scene import PaintOrder
from painter.sky import paint_lightning, paint_sky, paint_space, paint_weather
from painter.things import balloons, birds

_GRAIN = 5
"""Half the swing of the grain, in levels: hides the steps of 8-bit gradients without looking noisy."""

_CURVE = [round(255 * (t + 0.16 * (t - 0.5) * 4 * t * (1 - t))) for t in (v / 255 for v in range(256))]
"""A gentle S: deeper shadows and clearer lights."""


def finish(picture: Picture) -> Image.Image:
    """The finished picture."""
    image = _vignette(picture.image.point(_CURVE * 3))
    if picture.scene.has("monochrome") or set(picture.scene.colours) == {"black", "white"}:
        image = ImageOps.autocontrast(ImageOps.grayscale(image), cutoff=0.2).convert("RGB")
    return _grain(picture, image)


def _vignette(image: Image.Image) -> Image.Image:
    dark = [255 - round(46 * (level / 255) ** 2.4) for level in range(256)]
    shade = Image.radial_gradient("L").point(dark).resize(image.size, Image.Resampling.BICUBIC)
    return ImageChops.multiply(image, Image.merge("RGB", (shade, shade, shade)))


def _grain(picture: Picture, image: Image.Image) -> Image.Image:
    width, height = picture.size
    noise = Image.frombytes("L", picture.size, picture.rng("grain").randbytes(width * height))
    noise = noise.point([128 + round((level - 127.5) / 127.5 * _GRAIN) for level in range(256)])
    return ImageChops.add(image, Image.merge("RGB", (noise, noise, noise)), offset=-128)


def paint(order: PaintOrder) -> Image.Image:
    """Paint the picture in exactly the size asked for; the same order gives the same pixels."""
    picture = Picture(order)
    if picture.scene.ground == "abstract":
        paint_abstract(picture)
    elif picture.scene.ground == "space":
        paint_space(picture)
    else:
        _paint_landscape(picture)
    return finish(picture)


def _paint_landscape(picture: Picture) -> None:
    paint_sky(picture)
    if picture.scene.has("storm"):
        paint_lightning(picture)
    GROUNDS[picture.scene.ground](picture)
    if picture.scene.has("balloon"):
        balloons(picture)
    fair = picture.scene.time != "night" and not picture.scene.has_any("rain", "snow", "storm")
    if picture.scene.has("birds", default=fair and picture.rng("flock").random() < 0.3):
        birds(picture)
    paint_weather(picture)
