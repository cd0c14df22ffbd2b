"""Prompt metadata survives a round trip."""

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.object_metadata import PromptMetadata

PROMPT = PromptMetadata("a cat", "dogs", "builtin", 7, "64x96", datetime(2026, 11, 22, 8, 57, 4, tzinfo=UTC))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=2000)


def _is_sound(metadata: dict[str, str]) -> bool:
    """Return whether S3 and HTTP accept the metadata: ASCII, no spaces that get lost, at most 2 KB."""
    texts_are_sound = all(re.fullmatch(r"[ -~]*", text) for text in metadata.values())
    spaces_are = not any(text != text.strip() or "  " in text for text in metadata.values())
    return texts_are_sound and spaces_are and sum(map(len, [*metadata, *metadata.values()])) <= 2048


def test_short_texts_are_stored_unchanged() -> None:
    assert PROMPT.to_metadata() == {
        "prompt": "a cat",
        "negative-prompt": "dogs",
        "model": "builtin",
        "size": "64x96",
        "time": "2026-11-22T08:57:04+00:00",
        "seed": "7",
    }


@pytest.mark.parametrize("seed", [0, 2**32 - 1, None])
def test_seeds_survive_a_round_trip(seed: int | None) -> None:
    prompt_metadata = replace(PROMPT, seed=seed)
    assert PromptMetadata.from_metadata(prompt_metadata.to_metadata()) == prompt_metadata


@given(TEXTS, TEXTS, TEXTS)
def test_any_text_survives_a_round_trip_or_is_truncated(
    prompt: str, negative_prompt: str, model: str
) -> None:
    prompt_metadata = replace(PROMPT, prompt=prompt, negative_prompt=negative_prompt, model=model)
    metadata = prompt_metadata.to_metadata()
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
def test_truncated_prompts_use_all_available_space(prompt: str, kept: int) -> None:
    read = PromptMetadata.from_metadata(replace(PROMPT, prompt=prompt).to_metadata())
    assert read
    assert read.prompt == (prompt if kept == len(prompt) else prompt[:kept] + "…")


@pytest.mark.parametrize(
    "metadata",
    [{}, {"prompt": "x"}, {**PROMPT.to_metadata(), "seed": "x"}, {**PROMPT.to_metadata(), "time": ""}],
)
def test_unrelated_metadata_results_in_none(metadata: dict[str, str]) -> None:
    assert PromptMetadata.from_metadata(metadata) is None
