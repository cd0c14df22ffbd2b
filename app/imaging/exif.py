"""The one EXIF tag that changes how an image looks: its orientation."""

from typing import Literal

from app.errors import UndecodableImage
from app.imaging.bytereader import ByteReader

UPRIGHT = 1
QUARTER_TURNED = {5, 6, 7, 8}
"""Orientations that swap width and height."""
_PREFIX = b"Exif\0\0"
_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_ORIENTATION_TAG = 0x0112
_SHORT = 3


def orientation_of(exif: bytes) -> int:
    """Orientation 1…8 in a block of EXIF (CIPA DC-008, 4.6.4 A); 1 where it has none or is damaged.

    Cameras write broken EXIF often enough that it is no reason to refuse their pictures.
    """
    try:
        found = _orientation_entry(exif.removeprefix(_PREFIX))
    except UndecodableImage:
        return UPRIGHT
    return found if 1 <= found <= 8 else UPRIGHT


def _orientation_entry(tiff: bytes) -> int:
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return UPRIGHT
    directory = ByteReader(tiff, int.from_bytes(tiff[4:8], order))
    for _ in range(int.from_bytes(directory.take(2), order)):
        entry = directory.take(12)
        tag, kind = int.from_bytes(entry[:2], order), int.from_bytes(entry[2:4], order)
        if (tag, kind) == (_ORIENTATION_TAG, _SHORT):
            return int.from_bytes(entry[8:10], order)
    return UPRIGHT
