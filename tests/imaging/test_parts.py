"""What a walk over a container costs is bounded by parts, not by bytes, through all its loops together."""

import pytest

from app.core.errors import UndecodableImage
from app.imaging import survey
from app.imaging.check import clean_image
from app.imaging.survey import ByteReader

from .crowded import CROWDED
from .samples import LIMITS, SIZE, check, picture, saved

READS_A_PART = 8
"""The most reads that a part costs: an extent of an item has six fields."""


class _Reads:
    """Counts the reads of all readers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        skip = ByteReader.skip

        def counted(reader: ByteReader, count: int) -> None:
            self.count += 1
            skip(reader, count)

        monkeypatch.setattr(ByteReader, "skip", counted)


@pytest.mark.parametrize("name", CROWDED)
def test_a_crowded_file_is_given_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 1000
    monkeypatch.setattr(survey, "MAX_PARTS", most)
    data, reads = CROWDED[name](50 * most), _Reads(monkeypatch)
    with pytest.raises(UndecodableImage, match="more than 1000 parts"):
        clean_image(data, LIMITS)
    assert reads.count <= READS_A_PART * most


@pytest.mark.parametrize("name", ["gif frame", "gif comment", "gif loop count", "gif profile"])
def test_a_few_tiny_parts_are_no_reason(name: str) -> None:
    assert check(CROWDED[name](100)).frames == 1


def test_the_full_blocks_of_a_large_gif_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred megabytes have 400,000 of them."""
    data = saved(picture(size=(500, 300)).effect_spread(200), "gif")
    assert data.count(b"\xff") > 100
    monkeypatch.setattr(survey, "MAX_PARTS", 20)
    assert check(data).data == data


def test_an_animation_of_many_frames_is_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two parts for each frame, in the file and in the frames: MAX_IMAGE_FRAMES goes up to half the bound."""
    frames = [picture(turn, "RGBA", SIZE) for turn in range(20)]
    data = saved(frames[0], "webp", save_all=True, append_images=frames[1:], lossless=True)
    monkeypatch.setattr(survey, "MAX_PARTS", 2 * len(frames) + 2)
    assert check(data).frames == len(frames)
