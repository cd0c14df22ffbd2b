"""Sizes in the terms of the models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.generators.sizes import BEDROCK_RATIOS, bedrock_ratio, openai_size

SIDES = st.integers(1, 4096)


@pytest.mark.parametrize(
    ("size", "ratio"),
    [
        ((1024, 1024), "1:1"),
        ((64, 64), "1:1"),
        ((1920, 1080), "16:9"),
        ((1080, 1920), "9:16"),
        ((2048, 64), "21:9"),
        ((64, 2048), "9:21"),
        ((600, 400), "3:2"),
        ((1280, 1024), "5:4"),
        ((1000, 999), "1:1"),
    ],
)
def test_ratios(size: tuple[int, int], ratio: str) -> None:
    assert bedrock_ratio(*size) == ratio


@given(SIDES, SIDES)
def test_a_size_turned_gives_the_ratio_turned(width: int, height: int) -> None:
    ratio = bedrock_ratio(width, height)
    assert ratio in BEDROCK_RATIOS
    assert bedrock_ratio(height, width) == ":".join(reversed(ratio.split(":")))


@pytest.mark.parametrize(
    ("model", "size", "sent"),
    [
        ("gpt-image-2.6-flare", (1024, 1024), "1024x1024"),
        ("gpt-image-2.6-flare", (2048, 1152), "2048x1152"),
        ("gpt-image-2.6-flare", (64, 64), "816x816"),
        ("openai/gpt-image-2", (2048, 64), "1408x480"),
        ("gpt-image-1.5", (64, 64), "1024x1024"),
        ("gpt-image-1-mini", (1920, 1080), "1536x1024"),
        ("chatgpt-image-latest", (600, 2000), "1024x1536"),
        ("stablediffusion", (64, 100), "64x112"),
        ("flux", (2048, 64), "2048x64"),
    ],
)
def test_sizes(model: str, size: tuple[int, int], sent: str) -> None:
    assert openai_size(model, *size) == sent


@given(SIDES, SIDES)
def test_gpt_models_are_sent_what_they_take(width: int, height: int) -> None:
    across, down = map(int, openai_size("gpt-image-2", width, height).split("x"))
    assert (across % 16, down % 16) == (0, 0)
    assert max(across, down) <= 3 * min(across, down)
    assert across * down >= 655_360
