"""Paint landscapes from the words of a prompt, with Pillow and without an AI model.

    image = paint(PaintRequest("sunset over the sea", 1024, 768, seed=7))

The module `prompt` reads the words and determines the scene, and `palette` chooses the colours of the scene.
`canvas` contains the class `Picture` and the basic painting operations. `subjects` composes each kind of
picture from the parts in `sky`, `land`, `water`, `plants` and `things`.

The same request always produces the same picture. Each layer of a picture, such as the clouds, has its own
random source, which is seeded with a hash of the layer's name, both prompts and the seed. Lengths are
multiples of `Picture.unit`, so a scene looks the same at any size.
"""

from PIL import Image, ImageChops, ImageOps

from painter.canvas import Picture
from painter.prompt import PaintRequest
from painter.sky import paint_lightning, paint_sky, paint_weather
from painter.subjects import LANDSCAPES, paint_abstract, paint_space
from painter.things import paint_balloons, paint_birds

__all__ = ["PaintRequest", "paint"]

_GRAIN_LEVELS = 5
"""Amplitude of the film grain, in 8-bit levels. Grain of this amplitude hides the steps of gradients without
looking noisy."""

_CONTRAST = [round(255 * (t + 0.16 * (t - 0.5) * 4 * t * (1 - t))) for t in (v / 255 for v in range(256))]
"""Lookup table from 8-bit levels to new levels: an S-curve that deepens shadows and brightens highlights."""


def paint(request: PaintRequest) -> Image.Image:
    """Return an RGB image of exactly the requested size. The same request always produces the same pixels."""
    picture = Picture(request)
    if picture.scene.subject == "abstract":
        paint_abstract(picture)
    elif picture.scene.subject == "space":
        paint_space(picture)
    else:
        _paint_landscape(picture)
    image = _add_vignette(picture.image.point(_CONTRAST * 3))
    if picture.scene.has("monochrome") or set(picture.scene.colours) == {"black", "white"}:
        image = ImageOps.autocontrast(ImageOps.grayscale(image), cutoff=0.2).convert("RGB")
    return _add_grain(picture, image)


def _paint_landscape(picture: Picture) -> None:
    scene = picture.scene
    paint_sky(picture)
    if scene.has("storm"):
        paint_lightning(picture)
    LANDSCAPES[scene.subject](picture)
    if scene.has("balloon"):
        paint_balloons(picture)
    is_fair = scene.time != "night" and not scene.has_any("rain", "snow", "storm")
    if scene.has("birds", default=is_fair and picture.rng("flock").random() < 0.3):
        paint_birds(picture)
    paint_weather(picture)


def _add_vignette(image: Image.Image) -> Image.Image:
    dark = [255 - round(46 * (level / 255) ** 2.4) for level in range(256)]
    shade = Image.radial_gradient("L").point(dark).resize(image.size, Image.Resampling.BICUBIC)
    return ImageChops.multiply(image, Image.merge("RGB", (shade, shade, shade)))


def _add_grain(picture: Picture, image: Image.Image) -> Image.Image:
    width, height = picture.size
    noise = Image.frombytes("L", picture.size, picture.rng("grain").randbytes(width * height))
    noise = noise.point([128 + round((level - 127.5) / 127.5 * _GRAIN_LEVELS) for level in range(256)])
    return ImageChops.add(image, Image.merge("RGB", (noise, noise, noise)), offset=-128)
