"""Where the pixels of a variant come from."""

import pytest
from PIL import Image

from app.core.variant_specs import MAX_SIDE, parse_spec
from app.imaging.geometry import Layout, gravity_point, lay_out, to_stored
from app.imaging.pixels import TRANSPOSITIONS
from app.imaging.survey import SIDEWAYS_ORIENTATIONS

from .samples import picture

SOURCE = (400, 300)
WHOLE = (0, 0, 400, 300)


def laid_out(text: str, source: tuple[int, int] = SOURCE) -> Layout:
    """Return the layout that `text` stands for."""
    spec = parse_spec(text)
    return lay_out(spec, source, gravity_point(spec))


@pytest.mark.parametrize(
    ("text", "source", "size"),
    [
        ("w200", SOURCE, (200, 150)),
        ("h100", SOURCE, (133, 100)),
        ("w100,h100", SOURCE, (100, 75)),
        ("w400", SOURCE, (400, 300)),
        ("w401", SOURCE, (400, 300)),
        ("w4000,h3000", SOURCE, (400, 300)),
        ("w1", SOURCE, (1, 1)),
        ("w16", (10_000, 1), (16, 1)),
        ("w640", (100, 65_535), (25, MAX_SIDE)),
        ("h640", (65_535, 100), (MAX_SIDE, 25)),
        ("w16383", (1, 1), (1, 1)),
    ],
)
def test_contain_fits_into_the_box_and_never_enlarges(
    text: str, source: tuple[int, int], size: tuple[int, int]
) -> None:
    assert laid_out(text, source) == Layout((0, 0, *source), size, size, (0, 0))


@pytest.mark.parametrize(
    ("text", "region", "size"),
    [
        ("w100,h100,cover", (50, 0, 350, 300), (100, 100)),
        ("w100,h100,cover,west", (0, 0, 300, 300), (100, 100)),
        ("w100,h100,cover,northeast", (100, 0, 400, 300), (100, 100)),
        ("w100,h100,cover,north", (50, 0, 350, 300), (100, 100)),
        ("w200,h50,cover,north", (0, 0, 400, 100), (200, 50)),
        ("w200,h50,cover,southwest", (0, 200, 400, 300), (200, 50)),
        ("w200,h50,cover,fp0.1x0.5", (0, 100, 400, 200), (200, 50)),
        ("w100,h100,cover,fp0.4x1", (10, 0, 310, 300), (100, 100)),
        ("w100,h100,cover,fp0x0", (0, 0, 300, 300), (100, 100)),
        # Larger than the source in one direction or both: the same ratio, as large as the source allows.
        ("w300,h600,cover", (125, 0, 275, 300), (150, 300)),
        ("w1000,h1000,cover,east", (100, 0, 400, 300), (300, 300)),
        ("w800,h100,cover,south", (0, 250, 400, 300), (400, 50)),
        ("w400,h300,cover", WHOLE, (400, 300)),
        # Nothing is scaled, only cut off.
        ("w300,h300,cover", (50, 0, 350, 300), (300, 300)),
    ],
)
def test_cover_fills_the_box_and_never_enlarges(
    text: str, region: tuple[float, ...], size: tuple[int, int]
) -> None:
    assert laid_out(text) == Layout(region, size, size, (0, 0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "size", "canvas", "offset"),
    [
        ("w100,h100,pad", (100, 75), (100, 100), (0, 12)),
        ("w200,h100,pad", (133, 100), (200, 100), (33, 0)),
        ("w400,h400,pad", (400, 300), (400, 400), (0, 50)),
        ("w600,h100,pad", (133, 100), (600, 100), (233, 0)),
        # Larger than the source in both directions: the same ratio, touching the source.
        ("w800,h800,pad", (400, 300), (400, 400), (0, 50)),
        ("w2000,h1000,pad", (400, 300), (600, 300), (100, 0)),
    ],
)
def test_pad_keeps_the_ratio_of_the_box_and_never_enlarges(
    text: str, size: tuple[int, int], canvas: tuple[int, int], offset: tuple[int, int]
) -> None:
    assert laid_out(text) == Layout(WHOLE, size, canvas, offset)


@pytest.mark.parametrize("source", [(1, 1), (1, 16_383), (16_383, 1), (65_535, 1), (3, 7)])
@pytest.mark.parametrize("fit", ["contain", "cover", "pad"])
@pytest.mark.parametrize("box", ["w1,h1", "w16383,h16383", "w16383,h1", "w1,h16383", "w50,h70"])
def test_extreme_sizes_stay_within_the_box_and_the_source(
    source: tuple[int, int], fit: str, box: str
) -> None:
    spec = parse_spec(f"{box},{fit}")
    layout = lay_out(spec, source, (1, 1))
    left, top, right, bottom = layout.region
    assert 0 <= left < right <= source[0]
    assert 0 <= top < bottom <= source[1]
    for side in (0, 1):
        assert 1 <= layout.size[side] <= min(source[side], layout.canvas[side])
        assert layout.canvas[side] <= (spec.width, spec.height)[side]
        assert layout.offset[side] + layout.size[side] <= layout.canvas[side]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_of_the_upright_image_is_found_in_the_stored_one(orientation: int) -> None:
    upright = picture()
    box = (5, 3, 20, 29)
    # For six of the eight, the transposition is its own inverse.
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    stored = upright.transpose(TRANSPOSITIONS[inverse]) if orientation > 1 else upright
    assert (stored.size == upright.size) == (orientation not in SIDEWAYS_ORIENTATIONS)
    found: Image.Image = stored.crop(to_stored(box, upright.size, orientation))
    shown = found.transpose(TRANSPOSITIONS[orientation]) if orientation > 1 else found
    assert shown.tobytes() == upright.crop(box).tobytes()
