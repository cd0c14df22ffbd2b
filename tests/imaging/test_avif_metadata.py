"""Metadata in AVIF files is found through the tables of the meta box, in all their versions, and blanked."""

import struct

import pytest
from PIL import Image

from app.core.errors import UndecodableImage
from app.imaging.avif import without_metadata
from app.imaging.survey import PartCounter

from .samples import MARKER, box

FTYP = box(b"ftyp", b"avif\0\0\0\0mif1avif")
PAYLOAD = MARKER * 2


def _iinf(version: int, kind: bytes) -> bytes:
    count = struct.pack(">H", 1) if version == 0 else struct.pack(">I", 1)
    number = struct.pack(">H", 7) if version == 0 else struct.pack(">I", 7)
    entry = box(b"infe", bytes((2 if version == 0 else 3, 0, 0, 0)) + number + b"\0\0" + kind + b"\0")
    return box(b"iinf", bytes((version, 0, 0, 0)) + count + entry)


def _iloc(version: int, offset: int, *, in_idat: bool = False, number: int = 7) -> bytes:
    """Return a table with a base offset and one item, which has two extents."""
    wide = ">I" if version == 2 else ">H"
    method = struct.pack(">H", in_idat) if version else b""
    head = bytes((version, 0, 0, 0)) + b"\x44\x40" + struct.pack(wide, 1) + struct.pack(wide, number)
    half = len(PAYLOAD) // 2
    extents = struct.pack(">IIII", 0, half, half, len(PAYLOAD) - half)
    return box(b"iloc", head + method + b"\0\0" + struct.pack(">I", offset) + b"\0\2" + extents)


def _meta(*children: bytes) -> bytes:
    return box(b"meta", b"\0\0\0\0" + b"".join(children))


def _cleaned(data: bytes) -> bytes:
    clean = without_metadata(data, PartCounter())
    assert len(clean) == len(data)
    return clean


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("kind", [b"Exif", b"mime", b"uri "])
def test_metadata_items_in_mdat_are_blanked(version: int, kind: bytes) -> None:
    tables = (_iinf(min(version, 1), kind), _iloc(version, 0))
    offset = len(FTYP) + len(_meta(*tables)) + 8
    tables = (tables[0], _iloc(version, offset))
    data = FTYP + _meta(*tables) + box(b"mdat", PAYLOAD + b"pixels")
    clean = _cleaned(data)
    assert MARKER not in clean
    assert clean[:offset] == data[:offset]
    assert clean.endswith(b"pixels")


def test_metadata_items_in_idat_are_blanked() -> None:
    data = FTYP + _meta(_iinf(0, b"mime"), _iloc(1, 0, in_idat=True), box(b"idat", PAYLOAD + b"kept"))
    clean = _cleaned(data)
    assert MARKER not in clean
    assert clean.endswith(bytes(len(PAYLOAD)) + b"kept")


@pytest.mark.parametrize("version", [0, 1])
def test_thumbnails_are_blanked(version: int) -> None:
    number = struct.pack(">I" if version else ">H", 7)
    iref = box(b"iref", bytes((version, 0, 0, 0)) + box(b"thmb", number + b"\0\1" + number))
    data = FTYP + _meta(_iinf(0, b"av01"), iref, _iloc(1, 0, in_idat=True), box(b"idat", PAYLOAD))
    assert MARKER not in _cleaned(data)


def test_pictures_and_other_references_are_kept() -> None:
    number = struct.pack(">H", 7)
    iref = box(b"iref", b"\0\0\0\0" + box(b"auxl", number + b"\0\1" + number))
    data = FTYP + _meta(_iinf(0, b"av01"), iref, _iloc(1, 0, in_idat=True), box(b"idat", PAYLOAD))
    assert _cleaned(data) == data


def test_a_blanked_exif_item_is_valid_and_empty() -> None:
    data = FTYP + _meta(_iinf(0, b"Exif"), _iloc(1, 0, in_idat=True), box(b"idat", PAYLOAD))
    exif = Image.Exif()
    exif.load(_cleaned(data)[-len(PAYLOAD) + 4 :])
    assert not dict(exif)


@pytest.mark.parametrize("kind", [b"udta", b"uuid", b"free", b"skip"])
def test_boxes_with_arbitrary_content_become_free_space(kind: bytes) -> None:
    data = FTYP + box(b"moov", box(b"trak", box(kind, PAYLOAD))) + box(kind, PAYLOAD) + box(b"mdat", b"x")
    blanked = box(b"free", bytes(len(PAYLOAD)))
    assert _cleaned(data) == FTYP + box(b"moov", box(b"trak", blanked)) + blanked + box(b"mdat", b"x")


def test_a_description_property_becomes_free_space() -> None:
    description = box(b"udes", PAYLOAD)
    data = FTYP + _meta(box(b"iprp", box(b"ipco", box(b"ispe", b"size") + description)))
    assert _cleaned(data) == data.replace(description, box(b"free", bytes(len(PAYLOAD))))


def test_a_box_with_a_64_bit_size_is_blanked() -> None:
    data = FTYP + struct.pack(">I4sQ", 1, b"uuid", 16 + len(PAYLOAD)) + PAYLOAD + box(b"mdat", b"x")
    assert MARKER not in _cleaned(data)


def test_tables_that_list_the_same_bytes_repeatedly_are_refused() -> None:
    once = b"\0\0\0\0\x44\0\0\1\0\7\0\0"
    places = box(b"iloc", once + struct.pack(">H", 500) + struct.pack(">II", len(FTYP) + 8, 1000) * 500)
    data = FTYP + box(b"mdat", bytes(9000)) + _meta(_iinf(0, b"mime"), places)
    with pytest.raises(UndecodableImage, match="listed repeatedly"):
        without_metadata(data, PartCounter())
    assert without_metadata(data.replace(places[-8:] * 499, bytes(8 * 499)), PartCounter())


@pytest.mark.parametrize("over", range(-8, 0))
def test_tables_that_list_boxes_as_metadata_are_refused(over: int) -> None:
    front, media = FTYP + box(b"mdat", b"pixels"), box(b"mdat", PAYLOAD)
    tables = _iinf(0, b"Exif"), _iloc(0, len(front) + 8)
    assert MARKER not in _cleaned(front + media + _meta(*tables))
    tables = _iinf(0, b"Exif"), _iloc(0, len(front) + 8 + over)
    with pytest.raises(UndecodableImage, match="lie outside"):
        without_metadata(front + media + _meta(*tables), PartCounter())


def test_an_idat_item_without_an_idat_box_is_refused() -> None:
    with pytest.raises(UndecodableImage, match="lie outside"):
        without_metadata(FTYP + _meta(_iinf(0, b"mime"), _iloc(1, 0, in_idat=True)), PartCounter())


def test_empty_extents_count_as_parts() -> None:
    items = (b"\0\7\0\0" + b"\xff\xff") * 20
    places = box(b"iloc", b"\0\0\0\0\0\0\0\x14" + items)
    with pytest.raises(UndecodableImage, match="parts"):
        without_metadata(FTYP + _meta(_iinf(0, b"av01"), places), PartCounter())
