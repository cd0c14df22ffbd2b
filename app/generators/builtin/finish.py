"""The last touches on a picture: light over all, vignette, film grain, black and white."""

from PIL import Image, ImageChops, ImageOps

from app.generators.builtin.picture import Picture

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
