"""An image is accepted if all of its rows and scans are present and if browsers support its coding."""

import random
import struct
import subprocess
import zlib
from collections.abc import Callable
from io import BytesIO
from shutil import which
from tempfile import NamedTemporaryFile

import pytest
from PIL import Image

from app.core.errors import UndecodableImage
from app.imaging.png import check_rows
from app.imaging.survey import ImageLimits

from .avif_files import Item, picture_item, still
from .png_samples import CHANNELS, KINDS, made, noise
from .samples import (
    KINDS as FORMATS,
)
from .samples import (
    LIMITS,
    MARKER,
    RAW_LIMITS,
    animation,
    bare_gif,
    check,
    exif,
    gif_extension,
    inserted,
    jpeg_segment,
    picture,
    png_chunk,
    riff,
    sample,
    saved,
    shown,
)

BOTH = pytest.mark.parametrize("limits", [LIMITS, RAW_LIMITS], ids=["strip", "raw"])
SIZE = (37, 29)
EOI = b"\xff\xd9"
END_MARKER_BYTES = {"png": 12, "gif": 2, "jpeg": 2}
"""The number of bytes at the end of a file that contain no pixels."""


# PNG


def _row(bits: int, colour: int) -> int:
    """Return the number of bytes in a row of SIZE. The last rows of an interlaced image have as many."""
    return 1 + -(-SIZE[0] * bits * CHANNELS[colour] // 8)


@BOTH
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("bits", "colour"), KINDS)
def test_a_png_whose_rows_are_incomplete_is_refused(
    bits: int, colour: int, interlaced: bool, limits: ImageLimits
) -> None:
    rows = noise(bits, colour, SIZE)
    complete = made(rows, bits, colour, interlaced=interlaced)
    assert check(complete, limits).data == complete
    for lack in (1, _row(bits, colour), 3 * _row(bits, colour)):
        with pytest.raises(UndecodableImage):
            check(made(rows, bits, colour, interlaced=interlaced, lack=lack), limits)


@BOTH
def test_a_png_with_only_one_of_200_rows_is_refused(limits: ImageLimits) -> None:
    rows = noise(8, 2, (10, 200))
    with pytest.raises(UndecodableImage, match="rows are missing"):
        check(made(rows, 8, 2, lack=199 * 31), limits)


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_whose_last_row_has_one_colour_is_accepted(mode: str, colour: int) -> None:
    image = Image.new("L", SIZE, colour)
    data = saved(Image.new(mode, SIZE, colour) if mode == "I;16" else image.convert(mode), "png")
    assert check(data).data == data


@pytest.mark.parametrize(
    ("bits", "colour", "pixel"), [(8, 0, (1,)), (8, 2, (1, 254, 1)), (8, 6, (1, 254, 1, 7)), (1, 0, (1,))]
)
def test_a_png_whose_last_row_has_the_mark_colour_is_accepted_if_complete(
    bits: int, colour: int, pixel: tuple[int, ...]
) -> None:
    rows = [[pixel] * SIZE[0]] * SIZE[1]
    assert check(made(rows, bits, colour)).height == SIZE[1]
    with pytest.raises(UndecodableImage):
        check(made(rows, bits, colour, lack=_row(bits, colour)))


@BOTH
@pytest.mark.parametrize("default", [False, True])
def test_an_apng_with_an_incomplete_frame_is_refused(default: bool, limits: ImageLimits) -> None:
    data = saved(picture(), "png", default_image=default, **animation())
    assert check(data, limits).data == data
    check_rows(data)
    at = 0
    for _ in range(data.count(b"fdAT") + 1):
        at = min(found for kind in (b"IDAT", b"fdAT") if (found := data.find(kind, at + 1)) > 0)
        length = struct.unpack(">I", data[at - 4 : at])[0]
        head = 4 if data[at : at + 4] == b"fdAT" else 0
        payload = data[at + 4 : at + 4 + length]
        raw = zlib.decompress(payload[head:])
        control = data.rfind(b"fcTL", 0, at)
        width = 48 if control < 0 else struct.unpack_from(">I", data, control + 8)[0]
        short = png_chunk(data[at : at + 4], payload[:head] + zlib.compress(raw[: -1 - 3 * width]))
        with pytest.raises(UndecodableImage):
            check(data[: at - 4] + short + data[at + 8 + length :], limits)


def test_rotating_does_not_complete_an_incomplete_png() -> None:
    rotated = png_chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0"))
    for bits, colour in KINDS:
        with pytest.raises(UndecodableImage):
            check(made(noise(bits, colour, SIZE), bits, colour, rotated, lack=_row(bits, colour)))


_HEADER = struct.Struct(">IIBBBBB")


def _png(*chunks: tuple[bytes, bytes], header: bytes) -> bytes:
    """Return a PNG of 2 × 1 zeros, or up to 2 MB of zeros if the header declares a larger size."""
    width, height = _HEADER.unpack(header)[:2]
    pixels = zlib.compress(bytes(min(2 * 10**6, height * (1 + 6 * width))))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, payload) for kind, payload in parts)


GREY, COLOURED, INDEXED = (_HEADER.pack(2, 1, 8, colour, 0, 0, 0) for colour in (0, 2, 3))
NOT_DRAWN = {
    "an empty palette": _png((b"PLTE", b""), header=INDEXED),
    "an empty palette that no pixel needs": _png((b"PLTE", b""), header=COLOURED),
    "an unknown compression": _png(header=_HEADER.pack(2, 1, 8, 2, 1, 0, 0)),
    "colours of video": _png((b"cICP", b"\x09\x10\x09\x01"), header=COLOURED),
    "an unknown range": _png((b"cICP", b"\x09\x10\0\x02"), header=COLOURED),
    "too wide": _png(header=_HEADER.pack(1_000_001, 1, 8, 0, 0, 0, 0)),
    "too high": _png(header=_HEADER.pack(1, 1_000_001, 8, 0, 0, 0, 0)),
}
DRAWN = {
    "a palette": _png((b"PLTE", b"\0\0\0"), header=INDEXED),
    "HDR": _png((b"cICP", b"\x09\x10\0\x01"), header=COLOURED),
    "a cICP that is too short": _png((b"cICP", b"\x09\x10"), header=COLOURED),
    "grey": _png(header=GREY),
}


@BOTH
@pytest.mark.parametrize("name", NOT_DRAWN)
def test_pngs_that_browsers_do_not_draw_are_refused(name: str, limits: ImageLimits) -> None:
    with pytest.raises(UndecodableImage):
        check(NOT_DRAWN[name], limits)


@pytest.mark.parametrize("name", DRAWN)
def test_similar_pngs_that_browsers_draw_are_accepted(name: str) -> None:
    assert check(DRAWN[name]).data == DRAWN[name]


def test_bytes_after_the_last_row_are_ignored() -> None:
    raw = b"\0\7" + b"more than one row"
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")
    assert check(data).data == data


# GIF


def _gif(*frames: tuple[bytes, int], size: tuple[int, int] = (4, 4)) -> bytes:
    """Return a GIF with full-size frames. Each is given as 3-bit LZW codes and whether it is interlaced."""
    data = b"GIF89a" + struct.pack("<HH", *size) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    for codes, interlaced in frames:
        bits = sum(code << 3 * at for at, code in enumerate(codes))
        block = bits.to_bytes(-(-3 * len(codes) // 8), "little")
        data += b"\x2c" + struct.pack("<HHHHB", 0, 0, *size, 0x40 * interlaced)
        data += b"\2" + b"".join(
            bytes((len(part),)) + part for at in range(0, len(block), 255) if (part := block[at : at + 255])
        )
        data += b"\0"
    return data + b"\x3b"


def _codes(pixels: int) -> bytes:
    """Return the codes for `pixels` pixels and the end code.

    There is a clear code after every two codes, so that all codes have 3 bits.
    """
    return b"".join(b"\4\1\1" for _ in range(pixels // 2)) + b"\4\1" * (pixels % 2) + b"\5"


@BOTH
@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_gif_with_an_incomplete_frame_is_refused(interlaced: int, limits: ImageLimits) -> None:
    complete, short = (_codes(16), interlaced), (_codes(15), interlaced)
    assert check(_gif(complete, complete), limits).data == _gif(complete, complete)
    for frames in ([short], [complete, short], [short, complete], [short, complete, complete], [short] * 4):
        with pytest.raises(UndecodableImage):
            check(_gif(*frames), limits)


@BOTH
def test_bytes_after_a_gif_frame_do_not_complete_it(limits: ImageLimits) -> None:
    """More bytes follow than a decoder reads at once."""
    size, pixels = (100, 100), 10_000
    frames = [(_codes(pixels - 1), 0), *[(_codes(pixels), 0)] * 20]
    assert len(_gif(*frames, size=size)) > 100_000
    assert check(_gif(*frames[1:], size=size), limits).frames == 20
    with pytest.raises(UndecodableImage):
        check(_gif(*frames, size=size), limits)


@BOTH
def test_a_gif_without_the_end_code_is_accepted(limits: ImageLimits) -> None:
    data = _gif((_codes(16)[:-1], 0))
    assert check(data, limits).data == data


@BOTH
@pytest.mark.parametrize("bits", [9, 12])
def test_a_gif_with_indexes_of_more_than_8_bits_is_refused(bits: int, limits: ImageLimits) -> None:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    codes = ((1 << bits) | (1 << bits + 1) | ((1 << bits) + 1 << 2 * bits + 2)).to_bytes(5, "little")
    data = b"GIF89a\1\0\1\0\x80\0\0" + bytes(6) + frame + bytes((bits, 5)) + codes + b"\0\x3b"
    with pytest.raises(UndecodableImage, match="indexes"):
        check(data, limits)


# JPEG


JPEGS: dict[str, Callable[[], bytes]] = {
    "baseline": lambda: saved(picture(size=(200, 150)), "jpeg"),
    "one colour for all blocks": lambda: saved(picture(size=(200, 150)), "jpeg", subsampling=0, quality=98),
    "grey": lambda: saved(picture(mode="L", size=(333, 251)), "jpeg"),
    "CMYK": lambda: saved(picture(mode="CMYK", size=(99, 80)), "jpeg"),
    "flat": lambda: saved(Image.new("RGB", (400, 300), (200, 10, 10)), "jpeg"),
    "restarts": lambda: saved(picture(size=(200, 150)), "jpeg", restart_marker_rows=1),
    "restarts of grey": lambda: saved(picture(mode="L", size=(200, 150)), "jpeg", restart_marker_blocks=3),
    "progressive": lambda: saved(picture(size=(200, 150)), "jpeg", progressive=True),
    "progressive grey": lambda: saved(picture(mode="L", size=(133, 117)), "jpeg", progressive=True),
    "progressive CMYK": lambda: saved(picture(mode="CMYK", size=(99, 80)), "jpeg", progressive=True),
    "progressive with restarts": lambda: saved(
        picture(size=(200, 150)), "jpeg", progressive=True, restart_marker_blocks=4
    ),
    "a scan for each colour": lambda: _transformed("0;\n1;\n2;\n"),
    "a scan for each colour, restarts": lambda: _transformed("0;\n1;\n2;\n", "-restart", "4B"),
}


def _transformed(scans: str, *options: str) -> bytes:
    """Return a JPEG with these scans, written by jpegtran from libjpeg."""
    program = which("jpegtran")
    if program is None:
        pytest.skip("jpegtran is not installed")
    with NamedTemporaryFile("w") as script:
        script.write(scans)
        script.flush()
        command = [program, *options, "-scans", script.name]
        data = saved(picture(size=(200, 150)), "jpeg")
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout


@BOTH
@pytest.mark.parametrize("name", JPEGS)
def test_an_end_marker_does_not_complete_a_truncated_scan(name: str, limits: ImageLimits) -> None:
    data = JPEGS[name]()
    assert check(data, limits).data == data
    first = data.index(b"\xff\xda") + 20
    for cut in (0.1, 0.5, 0.9, 0.97):
        end = first + int((len(data) - first) * cut)
        beginning = data[:end].removesuffix(b"\xff")
        for rest in (EOI, b"", MARKER, b"<html>" * 5000):
            with pytest.raises(UndecodableImage):
                check(beginning + rest, limits)


@BOTH
@pytest.mark.parametrize("name", JPEGS)
def test_a_missing_jpeg_end_marker_is_added(name: str, limits: ImageLimits) -> None:
    data = JPEGS[name]()
    assert check(data[:-2], limits).data == data
    assert check(data[:-1], limits).data == data


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_a_jpeg_truncated_within_its_last_block_is_refused(seed: int, limits: ImageLimits) -> None:
    colours = random.Random(seed).randbytes(24 * 16 * 3)
    data = saved(Image.frombytes("RGB", (24, 16), colours), "jpeg", subsampling=0)
    for lack in range(6, 30):
        with pytest.raises(UndecodableImage):
            check(data[:-lack], limits)


def _scans(data: bytes) -> list[bytes]:
    """Return the header of a JPEG, followed by each scan with the tables that precede it."""
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    pieces, before = [], data.index(b"\xff\xc4")
    pieces.append(data[:before])
    for start in starts:
        end = start + 2 + struct.unpack(">H", data[start + 2 : start + 4])[0]
        while data[end] != 0xFF or data[end + 1] == 0 or 0xD0 <= data[end + 1] <= 0xD7:
            end += 1
        pieces.append(data[before:end])
        before = end
    return pieces


@BOTH
def test_a_progressive_jpeg_that_lacks_a_scan_is_refused(limits: ImageLimits) -> None:
    head, *scans = _scans(JPEGS["progressive"]())
    assert check(b"".join([head, *scans, EOI]), limits).width == 200
    for missing in range(len(scans)):
        with pytest.raises(UndecodableImage):
            check(b"".join([head, *scans[:missing], *scans[missing + 1 :], EOI]), limits)
    for end in range(1, len(scans)):
        with pytest.raises(UndecodableImage):
            check(b"".join([head, *scans[:end]]), limits)


@BOTH
def test_a_progressive_jpeg_with_a_truncated_scan_is_refused(limits: ImageLimits) -> None:
    head, *scans = _scans(JPEGS["progressive"]())
    for number, scan in enumerate(scans):
        short = scan[: -len(scan) // 3].removesuffix(b"\xff")
        with pytest.raises(UndecodableImage):
            check(b"".join([head, *scans[:number], short, *scans[number + 1 :], EOI]), limits)


@BOTH
def test_a_jpeg_that_lacks_the_scan_of_a_component_is_refused(limits: ImageLimits) -> None:
    data = JPEGS["baseline"]()
    start = data.index(b"\xff\xda")
    tables = data[start + 4 : start + 11]
    assert tables[0] == 3
    one = data[:start] + jpeg_segment(0xDA, b"\1" + tables[1:3] + b"\0\x3f\0") + data[start + 14 :]
    with pytest.raises(UndecodableImage, match="component 2"):
        check(one, limits)
    unknown = data[: start + 5] + b"\x09" + data[start + 6 :]
    with pytest.raises(UndecodableImage, match="components"):
        check(unknown, limits)


@BOTH
def test_a_jpeg_that_lacks_restart_intervals_is_refused(limits: ImageLimits) -> None:
    data = JPEGS["restarts"]()
    last = max(data.rfind(bytes((0xFF, marker))) for marker in range(0xD0, 0xD8))
    with pytest.raises(UndecodableImage, match="restart markers"):
        check(data[:last] + EOI, limits)


@BOTH
@pytest.mark.parametrize(
    "marker", [*range(0xC3, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7]
)
def test_jpeg_codings_that_no_browser_draws_are_refused(marker: int, limits: ImageLimits) -> None:
    """Lossless, hierarchical and arithmetic coding, and JPEG-LS."""
    data = JPEGS["baseline"]()
    with pytest.raises(UndecodableImage):
        check(data.replace(b"\xff\xc0", bytes((0xFF, marker))), limits)


def _lossless() -> bytes:
    """Return a lossless JPEG (T.81, annex H) with 8 × 8 equal pixels. libjpeg-turbo can decode it."""
    frame = jpeg_segment(0xC3, struct.pack(">BHHB", 8, 8, 8, 1) + b"\1\x11\0")
    table = jpeg_segment(0xC4, b"\0" + b"\1" + bytes(15) + b"\0")
    return b"\xff\xd8" + frame + table + jpeg_segment(0xDA, b"\1\1\0\1\0\0") + b"\0" * 7 + b"\x7f" + EOI


@BOTH
def test_a_lossless_jpeg_is_refused(limits: ImageLimits) -> None:
    with pytest.raises(UndecodableImage):
        check(_lossless(), limits)


@BOTH
@pytest.mark.parametrize("marker", [0xC1, 0xC2])
def test_jpegs_with_12_bits_are_refused(marker: int, limits: ImageLimits) -> None:
    data = JPEGS["progressive" if marker == 0xC2 else "baseline"]()
    at = data.index(b"\xff\xc2" if marker == 0xC2 else b"\xff\xc0")
    with pytest.raises(UndecodableImage):
        check(data[:at] + bytes((0xFF, marker)) + data[at + 2 : at + 4] + b"\x0c" + data[at + 5 :], limits)


@BOTH
def test_a_jpeg_with_its_height_after_the_scan_is_refused(limits: ImageLimits) -> None:
    """The height is in a DNL segment (T.81, B.2.5), which browsers don't support."""
    data = bytearray(JPEGS["baseline"]())
    at = data.index(b"\xff\xc0")
    height = bytes(data[at + 5 : at + 7])
    data[at + 5 : at + 7] = b"\0\0"
    with pytest.raises(UndecodableImage):
        check(bytes(data[:-2]) + jpeg_segment(0xDC, height) + EOI, limits)


# WebP


@BOTH
@pytest.mark.parametrize("lossless", [False, True])
def test_a_truncated_webp_picture_is_refused(lossless: bool, limits: ImageLimits) -> None:
    data = saved(picture(size=(200, 150)), "webp", lossless=lossless)
    kind, picture_data = data[12:16], data[20:]
    for cut in (10, len(picture_data) // 2):
        with pytest.raises(UndecodableImage):
            check(riff((kind, picture_data[:-cut])), limits)


# AVIF


@BOTH
def test_a_truncated_avif_picture_is_refused(limits: ImageLimits) -> None:
    """All sizes in the file match the truncated data, even those in the bitstream."""
    data = saved(picture(size=(64, 64)).effect_spread(20), "avif", quality=95)
    start = data.index(b"\x32", data.index(b"mdat"))
    high, low = data[start + 1] & 0x7F, data[start + 2]
    frame = data[start + 3 :]
    assert high | low << 7 == len(frame)
    for lack in (0, 1, 50, len(frame) // 2):
        left = len(frame) - lack
        unit = b"\x32" + bytes((left & 0x7F | 0x80, left >> 7)) + frame[:left]
        item = Item(data[data.index(b"mdat") + 4 : start] + unit, picture_item((64, 64)).properties)
        if lack:
            with pytest.raises(UndecodableImage):
                check(still([item]), limits)
        else:
            assert check(still([item]), limits).width == 64


# Files that all decoders can read are accepted


@BOTH
@pytest.mark.parametrize(("name", "animated"), [each for each in FORMATS if each[0] in END_MARKER_BYTES])
def test_a_missing_end_marker_is_added(name: str, animated: bool, limits: ImageLimits) -> None:
    data = sample(name, animated)
    for lack in range(1, END_MARKER_BYTES[name] + 1):
        checked = check(data[:-lack], limits)
        assert checked.data == data
        assert shown(checked.data) == shown(data)


@BOTH
def test_a_gif_that_ends_within_a_block_is_refused(limits: ImageLimits) -> None:
    data = bare_gif(2)[:-1]
    for rest in (b"\x2c", b"\x2c\0\0", b"\x21", b"\x21\xf9\4\0", b"\x99"):
        with pytest.raises(UndecodableImage):
            check(data + rest, limits)


@BOTH
def test_a_gif_that_ends_where_a_frame_is_due_is_refused(limits: ImageLimits) -> None:
    data = bare_gif(2)[:-1]
    control = gif_extension(0xF9, b"\0\5\0\0")
    for rest in (control, control[:-1], control[:2], control + gif_extension(0xFE, MARKER)):
        with pytest.raises(UndecodableImage, match="frame"):
            check(data + rest, limits)
    assert check(data + control + b"\x3b").data == data + b"\x3b"


def test_a_gif_that_ends_with_a_comment_is_accepted() -> None:
    data = bare_gif(2)
    assert check(data[:-1] + gif_extension(0xFE, MARKER)).data == data


@BOTH
def test_a_png_that_ends_within_another_chunk_is_refused(limits: ImageLimits) -> None:
    data = sample("png")
    for rest in (png_chunk(b"tEXt", MARKER)[:-1], b"\0\0\0\1", data[-8:]):
        with pytest.raises(UndecodableImage):
            check(data[:-12] + rest, limits)


def test_metadata_before_a_missing_end_is_dropped() -> None:
    assert check(inserted(sample("jpeg"), 20, jpeg_segment(0xFE, MARKER))[:-2]).data == sample("jpeg")
    assert check(inserted(sample("png"), 33, png_chunk(b"tEXt", MARKER))[:-12]).data == sample("png")


def test_rotated_and_completed_images_are_accepted_unchanged() -> None:
    rotated = check(saved(picture(), "jpeg", exif=exif(6))[:-2])
    assert check(rotated.data).data is rotated.data
    with Image.open(BytesIO(rotated.data)) as image:
        assert image.size == (rotated.width, rotated.height)
