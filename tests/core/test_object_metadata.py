"""What was asked, as metadata and back."""

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.object_metadata import PromptMetadata

ASKED = PromptMetadata("a cat", "dogs", "builtin", 7, "64x96", datetime(2026, 11, 22, 8, 57, 4, tzinfo=UTC))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=2000)


def _is_sound(metadata: dict[str, str]) -> bool:
    """What S3 and HTTP take: ASCII, no space that somebody would drop, 2 KB."""
    texts_are_sound = all(re.fullmatch(r"[ -~]*", text) for text in metadata.values())
    spaces_are = not any(text != text.strip() or "  " in text for text in metadata.values())
    return texts_are_sound and spaces_are and sum(map(len, [*metadata, *metadata.values()])) <= 2048


def test_it_is_readable() -> None:
    assert ASKED.to_metadata() == {
        "prompt": "a cat",
        "negative-prompt": "dogs",
        "model": "builtin",
        "size": "64x96",
        "time": "2026-11-22T08:57:04+00:00",
        "seed": "7",
    }


@pytest.mark.parametrize("seed", [0, 2**32 - 1, None])
def test_seeds(seed: int | None) -> None:
    asked = replace(ASKED, seed=seed)
    assert PromptMetadata.from_metadata(asked.to_metadata()) == asked


@given(TEXTS, TEXTS, TEXTS)
def test_any_text_comes_back_or_its_beginning(prompt: str, negative_prompt: str, model: str) -> None:
    asked = replace(ASKED, prompt=prompt, negative_prompt=negative_prompt, model=model)
    metadata = asked.to_metadata()
    assert _is_sound(metadata)
    read = PromptMetadata.from_metadata(metadata)
    assert read
    for before, after in (
        (prompt, read.prompt),
        (negative_prompt, read.negative_prompt),
        (model, read.model),
    ):
        assert after == before or (after.endswith("…") and before.startswith(after[:-1]))


@pytest.mark.parametrize(
    ("prompt", "kept"), [("x" * 1100, 1100), ("x" * 1101, 1091), ("猫" * 122, 122), ("猫" * 123, 121)]
)
def test_long_prompts_are_cut_as_late_as_possible(prompt: str, kept: int) -> None:
    read = PromptMetadata.from_metadata(replace(ASKED, prompt=prompt).to_metadata())
    assert read
    assert read.prompt == (prompt if kept == len(prompt) else prompt[:kept] + "…")


@pytest.mark.parametrize(
    "metadata",
    [{}, {"prompt": "x"}, {**ASKED.to_metadata(), "seed": "x"}, {**ASKED.to_metadata(), "time": ""}],
)
def test_other_metadata_is_none(metadata: dict[str, str]) -> None:
    assert PromptMetadata.from_metadata(metadata) is None
