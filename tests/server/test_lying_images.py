"""Test that images that are larger than they claim are rejected without being decoded."""

from collections.abc import Callable, Iterator

import pytest
import requests

from tests.imaging.avif_files import Track, animated, av1_frames, grid_item, picture_item, still
from tests.imaging.inconsistent import CONSISTENT
from tests.server.running import Running, running

HUGE, SMALL, MIDDLE = (8192, 8192), (64, 64), (1024, 1024)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server with a limit that is sufficient for most photos."""
    directory = tmp_path_factory.mktemp("lying")
    with running(directory, MAX_IMAGE_PIXELS="12000000", WEB_CONCURRENCY="1") as server:
        yield server


def _uploaded(server: Running, data: bytes) -> requests.Response:
    return requests.post(
        f"{server.url}/api/images", data=data, headers={"Content-Type": "image/avif"}, timeout=60
    )


def _still() -> bytes:
    return still([picture_item(HUGE, SMALL)])


def _cell() -> bytes:
    cells = [picture_item(SMALL), picture_item(HUGE, SMALL)]
    return still([grid_item(1, 2, (128, 64)), *cells], [(b"dimg", 1, (2, 3))])


def _one_frame_999_times() -> bytes:
    """Return an animation whose track claims 64 × 64, so that all frames together seem within the limit."""
    return animated(Track(av1_frames(MIDDLE, 2)[:1], SMALL, places=[0] * 999))


@pytest.mark.parametrize("make", [_still, _cell, _one_frame_999_times])
def test_images_larger_than_they_claim_are_refused(server: Running, make: Callable[[], bytes]) -> None:
    workers, data = server.workers(), make()
    assert len(data) < 50_000
    answer = _uploaded(server, data)
    assert (answer.status_code, answer.json()["code"]) == (422, "undecodable_image")
    assert server.workers() == workers


def test_honest_grids_and_animations_are_accepted(server: Running) -> None:
    for name in ("avif grid with alpha", "avif animation with alpha"):
        (width, height, frames), make = CONSISTENT[name]
        answer = _uploaded(server, make()).json()
        assert (answer["width"], answer["height"], answer["frames"]) == (width, height, frames)
