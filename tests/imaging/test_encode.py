"""Images of every Pillow mode are encoded in every format. They look the same and have no metadata."""

from io import BytesIO

import pytest
from PIL import Image, ImageChops, ImageStat
from PIL.PngImagePlugin import PngInfo

from app.core.errors import UndecodableImage
from app.core.objects import FORMATS
from app.imaging.encode import encode_image

from .samples import ICC, MARKER, NAMES, SIZE, check, exif, info, picture, sample

PLAIN = (
    "1",
    "L",
    "P",
    "RGB",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "I",
    "F",
    "I;16",
    "I;16B",
    "I;16L",
    "I;16N",
)
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def _in_mode(mode: str, colour: tuple[int, int, int]) -> Image.Image:
    """Return an image of one colour in any mode. In 16-bit modes, its values are scaled to 0…65535."""
    image = Image.new("RGB", SIZE, colour)
    if mode.startswith("I"):
        grey = image.convert("L").convert("I").point(lambda value: value * 257)
        return grey.convert("I;16").convert(mode) if mode == "I;16" else _bytes_as(mode, grey)
    if mode == "LAB":
        # Lightness isn't linear: 206 is the grey of 200 in sRGB.
        return Image.new("LAB", SIZE, (colour[0] + 6, 128, 128))
    if mode == "La":
        return image.convert("LA").convert("La")
    if mode == "RGBa":
        return image.convert("RGBA").convert("RGBa")
    return image.convert("L").convert("F") if mode == "F" else image.convert(mode)


def _bytes_as(mode: str, grey: Image.Image) -> Image.Image:
    if mode == "I":
        return grey
    order = "big" if mode == "I;16B" else "little"
    first = grey.getpixel((0, 0))
    assert isinstance(first, int)
    return Image.frombytes(mode, SIZE, first.to_bytes(2, order) * (SIZE[0] * SIZE[1]))


def _pixel(data: bytes) -> tuple[int, ...]:
    with Image.open(BytesIO(data)) as image:
        if image.mode.startswith("I;16"):
            grey = image.getpixel((5, 5))
            assert isinstance(grey, int)
            return (grey // 257,) * 3 + (255,)
        found = image.convert("RGBA").getpixel((5, 5))
    assert isinstance(found, tuple)
    return tuple(int(value) for value in found)


@pytest.mark.parametrize("mode", [*PLAIN, *WITH_ALPHA])
@pytest.mark.parametrize("name", NAMES)
def test_grey_keeps_its_value(mode: str, name: str) -> None:
    grey = 255 if mode == "1" else 200
    data = encode_image(_in_mode(mode, (grey, grey, grey)), FORMATS[name])
    assert check(data).format.name == name
    assert check(data).data is data
    assert all(abs(value - grey) <= 4 for value in _pixel(data)[:3]), _pixel(data)
    assert _pixel(data)[3] == 255


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "PA"])
@pytest.mark.parametrize("name", NAMES)
def test_colours_keep_their_values(mode: str, name: str) -> None:
    pixel = _pixel(encode_image(_in_mode(mode, (204, 51, 102)), FORMATS[name]))
    assert max(abs(value - wanted) for value, wanted in zip(pixel[:3], (204, 51, 102), strict=True)) <= 6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_transparency_is_kept_and_becomes_white_in_jpeg(name: str, mode: str) -> None:
    image = _transparent(mode)
    pixel = _pixel(encode_image(image, FORMATS[name]))
    if name == "jpeg":
        assert min(pixel) >= 252
    else:
        assert pixel[3] == 0


def _transparent(mode: str) -> Image.Image:
    if mode in ("RGBA", "LA"):
        return Image.new("RGBA", SIZE, (0, 0, 0, 0)).convert(mode)
    image = Image.new(mode, SIZE, 0)
    image.info["transparency"] = (0, 0, 0) if mode == "RGB" else 0
    return image


def test_a_gif_has_opaque_and_transparent_pixels_only() -> None:
    image = picture(mode="RGBA")
    image.putalpha(Image.linear_gradient("L").resize(SIZE))
    with Image.open(BytesIO(encode_image(image, FORMATS["gif"]))) as gif:
        alpha = gif.convert("RGBA").getchannel("A")
    assert sorted({value for _, value in alpha.getcolors() or []}) == [0, 255]
    assert alpha.getpixel((0, 0)) == 0
    assert alpha.getpixel((0, SIZE[1] - 1)) == 255


@pytest.mark.parametrize("name", NAMES)
def test_encoding_changes_pixels_little(name: str) -> None:
    with Image.open(BytesIO(encode_image(picture(), FORMATS[name]))) as image:
        difference = ImageChops.difference(image.convert("RGB"), picture())
    assert max(ImageStat.Stat(difference).mean) < (0.01 if name == "png" else 8)


@pytest.mark.parametrize("name", NAMES)
def test_metadata_of_the_source_is_not_encoded(name: str) -> None:
    notes = PngInfo()
    notes.add_text("Comment", MARKER.decode())
    notes.add_itxt("XML:com.adobe.xmp", MARKER.decode())
    buffer = BytesIO()
    picture().save(buffer, "PNG", pnginfo=notes, exif=exif(6))
    with Image.open(buffer) as image:
        image.load()
        image.info |= {"comment": MARKER, "exif": exif(), "xmp": MARKER, "dpi": (7, 7)}
        data = encode_image(image, FORMATS[name])
        assert image.info["comment"] == MARKER
    assert MARKER not in data
    assert not info(data).keys() & {"exif", "xmp", "comment", "dpi"}


@pytest.mark.parametrize(
    ("mode", "name", "kept"),
    [
        ("RGB", "png", True),
        ("RGB", "jpeg", True),
        ("RGBA", "webp", True),
        ("RGBA", "jpeg", True),
        ("P", "avif", True),
        ("L", "png", True),
        ("L", "jpeg", True),
        ("LA", "webp", False),
        ("CMYK", "jpeg", False),
        ("LAB", "png", False),
        ("RGB", "gif", False),
    ],
)
def test_the_colour_profile_is_kept_while_it_applies(mode: str, name: str, kept: bool) -> None:
    image = _in_mode(mode, (9, 9, 9))
    image.info["icc_profile"] = ICC
    assert (info(encode_image(image, FORMATS[name])).get("icc_profile") == ICC) is kept


@pytest.mark.parametrize("name", NAMES)
def test_the_current_frame_of_an_animation_is_encoded(name: str) -> None:
    with Image.open(BytesIO(sample("gif", True))) as image:
        image.seek(2)
        data = encode_image(image, FORMATS[name])
    assert check(data).frames == 1
    with Image.open(BytesIO(data)) as written:
        difference = ImageChops.difference(written.convert("RGB"), picture(2))
    assert max(ImageStat.Stat(difference).mean) < 20


@pytest.mark.parametrize(("name", "size"), [("webp", (16384, 1)), ("jpeg", (65536, 1)), ("png", (0, 0))])
def test_a_size_that_the_format_does_not_support_is_an_error(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(UndecodableImage, match=f"{size[0]} × {size[1]} pixels can't be encoded as {name}"):
        encode_image(Image.new("RGB", size), FORMATS[name])


def test_png_keeps_16_bits() -> None:
    data = encode_image(Image.new("I;16", SIZE, 12345), FORMATS["png"])
    with Image.open(BytesIO(data)) as image:
        assert (image.mode, image.getpixel((0, 0))) == ("I;16", 12345)
