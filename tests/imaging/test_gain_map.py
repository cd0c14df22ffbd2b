"""The gain map of an HDR photo is kept as part of the image, but other data in it is dropped."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from app.imaging import gain_map as gain_maps
from app.imaging.check import clean_image
from app.imaging.pixels import TRANSPOSITIONS

from .samples import ICC, LIMITS, MARKER, RAW_LIMITS, check, inserted, jpeg_segment, picture, saved
from .ultra_hdr import (
    ELEMENTS,
    FIELDS,
    ISO,
    ISO_NUMBERS,
    ISO_OF_THREE,
    MPF,
    SIZE,
    SMALL,
    XMP,
    gain_map,
    index,
    packet,
    photo,
    read,
)

DIRECTORY = (
    '<C:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><C:Item xmlns:I="http://ns.google.com/photos/1.0/'
    'container/item/" I:Semantic="GainMap" I:Length="4711"/></rdf:li></rdf:Seq></C:Directory>'
)
ANNOUNCING = packet('hdrgm:Version="1.0"', DIRECTORY)
PLAIN = saved(picture(size=SIZE), "jpeg", quality=90)
SECOND = saved(picture(1, "L", SMALL), "jpeg", quality=90)
XMP_FORM = photo(gain_map(packet(FIELDS), b""), xmp=ANNOUNCING, iso=False)
ISO_FORM = photo(gain_map())
BOTH_FORMS = photo(gain_map(packet(FIELDS)), xmp=ANNOUNCING)
FORMS = pytest.mark.parametrize("data", [XMP_FORM, ISO_FORM, BOTH_FORMS], ids=["xmp", "iso", "both"])


def _pixels(jpeg: bytes) -> Image.Image:
    image = Image.open(BytesIO(jpeg), formats=["JPEG"])
    image.load()
    return image


def _difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return max(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean)


@FORMS
def test_the_gain_map_is_kept_without_personal_metadata(data: bytes) -> None:
    assert MARKER in data
    checked = check(data)
    found = read(checked.data)
    assert (checked.width, checked.height, checked.frames) == (*SIZE, 1)
    assert [_pixels(each).tobytes() for each in found.pictures] == [
        _pixels(each).tobytes() for each in (PLAIN, SECOND)
    ]
    assert MARKER not in checked.data
    assert not any(payload.startswith(b"Exif") for each in found.segments for _, payload in each)
    assert check(checked.data).data is checked.data
    assert check(data, RAW_LIMITS).data is data


@FORMS
def test_the_parameters_are_kept_in_the_same_forms(data: bytes) -> None:
    found = read(check(data).data)
    for picture_number, start in ((0, XMP), (1, XMP)):
        there = any(payload.startswith(start) for _, payload in found.segments[picture_number])
        assert there is (data is not ISO_FORM)
    if data is not ISO_FORM:
        assert b' hdrgm:Version="1.0"' in found.payload(0, XMP)
        assert all(field.encode() in found.payload(1, XMP) for field in FIELDS.split())
    if data is not XMP_FORM:
        assert (found.payload(0, ISO), found.payload(1, ISO)) == (bytes(4), ISO_NUMBERS)


def test_values_per_channel_and_elements_instead_of_attributes_are_kept() -> None:
    second = gain_map(packet('hdrgm:Version="1.0"', ELEMENTS), ISO_OF_THREE, mode="RGB")
    found = read(check(photo(second, xmp=ANNOUNCING)).data)
    xmp = found.payload(1, XMP)
    assert b"<rdf:li>2.1</rdf:li><rdf:li>2.2</rdf:li><rdf:li>2.3</rdf:li>" in xmp
    assert b'hdrgm:Gamma="1.5"' in xmp
    assert found.payload(1, ISO) == ISO_OF_THREE
    assert _pixels(found.pictures[1]).mode == "RGB"


def test_xmp_with_only_a_version_is_kept() -> None:
    found = read(check(photo(gain_map(ANNOUNCING, b""), xmp=ANNOUNCING, iso=False)).data)
    assert b'hdrgm:Version="1.0"></rdf:Description>' in found.payload(1, XMP)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_gain_map_is_rotated_with_the_picture(orientation: int) -> None:
    data = photo(gain_map(packet(FIELDS)), xmp=ANNOUNCING, orientation=orientation)
    checked = check(data)
    found = read(checked.data)
    first, second = map(_pixels, found.pictures)
    method = TRANSPOSITIONS[orientation]
    assert (checked.width, checked.height) == first.size == _pixels(PLAIN).transpose(method).size
    assert _difference(first, _pixels(PLAIN).transpose(method)) < 2
    assert _difference(second, _pixels(SECOND).transpose(method)) < 2
    assert first.getexif().get(0x0112, 1) == 1
    assert found.payload(1, ISO) == ISO_NUMBERS
    assert check(checked.data).data is checked.data


def test_the_orientation_of_the_gain_map_itself_is_ignored() -> None:
    rotated = gain_map().replace(b"\x12\x01\x03\0\1\0\0\0\1", b"\x12\x01\x03\0\1\0\0\0\6")
    rotated = rotated.replace(b"\1\x12\0\3\0\0\0\1\0\1", b"\1\x12\0\3\0\0\0\1\0\6")
    assert rotated != gain_map()
    assert check(photo(rotated)).data == check(ISO_FORM).data


@pytest.mark.parametrize("order", "<>")
def test_the_gain_map_is_found_by_the_index(order: str) -> None:
    data = photo(gain_map(), order=order, between=b"\0" * 100 + saved(picture(2), "jpeg"))
    assert check(data).data == check(ISO_FORM).data


def test_without_an_index_the_next_picture_is_the_gain_map() -> None:
    second = gain_map(packet(FIELDS), b"")
    data = inserted(PLAIN, 20, ANNOUNCING) + second
    assert check(data).data == check(XMP_FORM).data


def test_the_colour_profile_of_the_gain_map_is_kept() -> None:
    second = inserted(gain_map(), 20, jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + ICC))
    assert _pixels(read(check(photo(second)).data).pictures[1]).info["icc_profile"] == ICC


def test_bytes_after_the_gain_map_are_dropped() -> None:
    video = b"\0\0\0\x18ftypmp42" + MARKER
    assert check(ISO_FORM + video).data == check(ISO_FORM).data


CUT = gain_map()[: len(gain_map()) * 2 // 3]
LARGER = inserted(saved(picture(1, "L", (97, 64)), "jpeg"), 20, jpeg_segment(0xE2, ISO + ISO_NUMBERS))
ODD = inserted(SECOND, 20, jpeg_segment(0xE2, ISO + ISO_NUMBERS))


@pytest.mark.parametrize(
    "data",
    [
        photo(gain_map(), iso=False),
        photo(gain_map(iso=b"")),
        photo(gain_map(packet('hdrgm:GainMapMax="1.0"'), b""), xmp=ANNOUNCING, iso=False),
        photo(gain_map(packet(FIELDS.replace("2.3", "Berlin")), b""), xmp=ANNOUNCING, iso=False),
        photo(gain_map(packet(FIELDS.replace("2.3", "NaN")), b""), xmp=ANNOUNCING, iso=False),
        photo(gain_map(packet(FIELDS) + b"<!DOCTYPE x>", b""), iso=False),
        photo(gain_map(iso=b"\0\1" + ISO_NUMBERS[2:])),
        photo(inserted(SECOND, 20, jpeg_segment(0xE2, ISO + ISO_NUMBERS[:-1]))),
        photo(CUT),
        photo(CUT + b"\xff\xd9"),
        photo(LARGER),
        photo(ODD.replace(b"\xff\xc0", b"\xff\xc3")),
        photo(ODD.replace(b"\xff\xc0", b"\xff\xc1").replace(b"\x08\0\x10\0\x18", b"\x0c\0\x10\0\x18")),
        photo(b"\xff\xd8\xff"),
        photo(b"<html>"),
        inserted(PLAIN, 20, index([(0x030000, 0, 0), (0, 2**32 - 1, 2**32 - 1)])),
        inserted(PLAIN, 20, jpeg_segment(0xE2, MPF + b"MM\0*\xff\xff\xff\xff")),
        inserted(PLAIN, 20, jpeg_segment(0xE2, MPF)),
    ],
)
def test_incomplete_gain_maps_and_those_without_parameters_are_dropped(data: bytes) -> None:
    assert check(data).data == PLAIN


def test_pictures_of_other_multi_picture_files_are_dropped() -> None:
    """Stereo photos, panoramas and thumbnails don't announce a gain map."""
    second = saved(picture(1, size=SIZE), "jpeg")
    assert check(photo(second, iso=False)).data == PLAIN
    assert check(photo(second, xmp=packet(""), iso=False)).data == PLAIN


def test_only_one_gain_map_is_kept() -> None:
    assert check(ISO_FORM + gain_map(variant=2)).data == check(ISO_FORM).data


def test_a_gain_map_in_a_gain_map_is_dropped() -> None:
    nested = photo(gain_map(variant=2), orientation=1)
    small = inserted(nested, 20, jpeg_segment(0xE2, ISO + ISO_NUMBERS))
    found = read(check(photo(small)).data)
    assert not any(payload.startswith(MPF) for _, payload in found.segments[1])


def test_only_8_pictures_of_an_index_are_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The MP index has thousands of entries, each for a different picture."""
    decoy, count = saved(picture(2), "jpeg"), 4000
    own = jpeg_segment(0xE2, ISO + bytes(4))
    length = len(PLAIN) + len(own) + len(index([(0, 0, 0)] * count))
    start = length - (20 + len(own) + 8)
    entries = [(0, len(decoy), start + number * len(decoy)) for number in range(-1, count - 1)]
    data = inserted(PLAIN, 20, own + index(entries)) + decoy * count
    examined = []

    def recorded(
        data: bytes, start: int, announcement: gain_maps.GainMapAnnouncement
    ) -> gain_maps.FoundGainMap:
        examined.append(start)
        return read_description(data, start, announcement)

    read_description = gain_maps._read_description
    monkeypatch.setattr(gain_maps, "_read_description", recorded)
    clean_image(data, LIMITS)
    assert examined == [length + number * len(decoy) for number in range(8)]


@pytest.mark.parametrize(
    "segment", [packet('hdrgm:Version="one"'), index([(0, 0, 0)] * 9)], ids=["xmp", "index"]
)
def test_only_a_few_metadata_segments_are_parsed(segment: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """This applies to the segments of the photo, and to those of a picture that may be its gain map."""
    read: list[object] = []

    def counted(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(given: Any) -> Any:
            read.append(given)
            return function(given)

        return call

    monkeypatch.setattr(gain_maps, "_xmp_fields", counted(gain_maps._xmp_fields))
    monkeypatch.setattr(gain_maps, "_picture_starts", counted(gain_maps._picture_starts))
    assert check(photo(gain_map(), xmp=ANNOUNCING + segment * 500)).data == check(photo(gain_map())).data
    assert check(photo(inserted(gain_map(), 20, segment * 500), xmp=ANNOUNCING)).data == PLAIN
    assert len(read) < 500


def test_pixels_of_the_gain_map_count_before_a_decoder_runs() -> None:
    pixels: list[int] = []
    clean_image(ISO_FORM, LIMITS, before_decoding=pixels.append)
    assert pixels == [SIZE[0] * SIZE[1] + SMALL[0] * SMALL[1]]
    tight = replace(LIMITS, max_pixels=SIZE[0] * SIZE[1])
    assert check(ISO_FORM, tight).data == check(ISO_FORM).data
