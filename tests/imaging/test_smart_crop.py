"""The gravity `smart` keeps the part of a picture that draws the eye."""

from io import BytesIO

import pytest
from PIL import Image, ImageDraw

from app.core.variant_specs import parse_spec
from app.imaging.smart_crop import focus_of, sample_size
from app.imaging.variants import VariantRequest, make_variant

from .samples import LIMITS, saved


def scene(at: tuple[int, int], size: tuple[int, int] = (90, 60)) -> Image.Image:
    """Return a soft background with a small, colourful object of many edges at `at`."""
    image = Image.linear_gradient("L").resize(size).point(lambda value: 100 + value // 8).convert("RGB")
    draw = ImageDraw.Draw(image)
    for ring in range(8, 0, -2):
        colour = (220, 40, 30) if ring % 4 else (250, 240, 60)
        draw.ellipse((at[0] - ring, at[1] - ring, at[0] + ring, at[1] + ring), fill=colour)
    return image


@pytest.mark.parametrize("across", [12, 30, 45, 60, 78])
def test_the_object_is_kept_in_a_narrow_crop(across: int) -> None:
    found = focus_of(scene((across, 30)), (30, 60))
    left = found[0] * 90 - 15
    assert left <= across - 8
    assert across + 8 <= left + 30
    assert found[1] == 0.5


@pytest.mark.parametrize("down", [10, 30, 50])
def test_the_object_is_kept_in_a_low_crop(down: int) -> None:
    found = focus_of(scene((45, down)), (90, 25))
    top = found[1] * 60 - 12.5
    assert top <= down - 8
    assert down + 8 <= top + 25
    assert found[0] == 0.5


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "YCbCr"])
def test_the_object_is_found_in_every_mode(mode: str) -> None:
    image = scene((70, 30)).convert("L").convert("LA") if mode == "LA" else scene((70, 30)).convert(mode)
    assert focus_of(image, (30, 60))[0] > 0.6


@pytest.mark.parametrize("size", [(60, 40), (1, 1), (100, 1), (1, 100)])
def test_without_any_edges_the_centre_is_kept(size: tuple[int, int]) -> None:
    found = focus_of(Image.new("RGB", size, "teal"), (10, 10))
    assert found == pytest.approx((0.5, 0.5), abs=0.01)


@pytest.mark.parametrize(
    ("size", "expected"), [((4000, 3000), (100, 75)), ((50, 20), (50, 20)), ((1, 9000), (1, 100))]
)
def test_the_picture_is_searched_at_a_small_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert sample_size(size) == expected


@pytest.mark.parametrize("at", [(30, 60), (150, 60)])
def test_a_smart_crop_shows_the_object(at: tuple[int, int]) -> None:
    data = saved(scene(at, (180, 120)), "png")
    made = make_variant(data, VariantRequest(parse_spec("w60,h120,cover,smart"), "png", 10_000), LIMITS)
    centred = make_variant(data, VariantRequest(parse_spec("w60,h120,cover"), "png", 10_000), LIMITS)
    assert _reds(made.data) > 50 > _reds(centred.data)


def _reds(data: bytes) -> int:
    with Image.open(BytesIO(data)) as image:
        red, green, _ = image.convert("RGB").split()
    return sum(1 for r, g in zip(red.tobytes(), green.tobytes(), strict=True) if r > 200 and g < 60)
