"""Metadata survives a round trip, and never exceeds what S3 accepts."""

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.object_keys import digest_metadata
from app.core.object_metadata import ImageInfo, PromptMetadata, name_metadata, with_info, without_info

PROMPT = PromptMetadata("a cat", "dogs", "builtin", 7, "64x96", datetime(2026, 11, 22, 8, 57, 4, tzinfo=UTC))
INFO = ImageInfo(4000, 3000, 1, False, "3OcRJYB4d3h/iIeHeEh3eIhw+j2w")
LARGEST_INFO = ImageInfo(65_535, 65_535, 9_999, False, "A" * 36)
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
    ("prompt", "kept"), [("x" * 1000, 1000), ("x" * 1001, 991), ("猫" * 111, 111), ("猫" * 112, 110)]
)
def test_truncated_prompts_use_all_available_space(prompt: str, kept: int) -> None:
    read = PromptMetadata.from_metadata(replace(PROMPT, prompt=prompt).to_metadata())
    assert read
    assert read.prompt == (prompt if kept == len(prompt) else prompt[:kept] + "…")


def test_the_largest_metadata_fits_even_if_a_server_counts_the_prefixes() -> None:
    longest = PromptMetadata("猫" * 2000, "犬" * 2000, "m" * 2000, 2**32 - 1, "2048x2048", PROMPT.time)
    digest = digest_metadata("generated/2026/11/20261122_085704_1b095523c55cd29a14804a36.png", b"")
    assert digest
    for base in ({**longest.to_metadata(), **digest}, name_metadata("猫" * 2000)):
        metadata = with_info(base, LARGEST_INFO)
        assert ImageInfo.from_metadata(metadata) == LARGEST_INFO
        assert sum(len(f"x-amz-meta-{name}") + len(value) for name, value in metadata.items()) <= 2048
        assert _is_sound(dict(metadata))


@pytest.mark.parametrize("info", [INFO, LARGEST_INFO, replace(INFO, has_alpha=True, frames=20)])
def test_the_facts_about_a_picture_survive_a_round_trip(info: ImageInfo) -> None:
    assert ImageInfo.from_metadata(with_info(PROMPT.to_metadata(), info)) == info
    assert PromptMetadata.from_metadata(with_info(PROMPT.to_metadata(), info)) == PROMPT
    assert without_info(with_info(PROMPT.to_metadata(), info)) == PROMPT.to_metadata()


def test_values_with_the_same_names_that_are_no_facts_are_kept() -> None:
    metadata = {"width": "13 cm", "height": "18 cm"}
    assert without_info(metadata) == metadata


def test_the_facts_about_a_picture_are_left_out_if_there_is_no_room_for_them() -> None:
    room = sum(map(len, [*INFO.to_metadata(), *INFO.to_metadata().values()]))
    fits = {"comment": "x" * (2048 - room - len("comment"))}
    assert ImageInfo.from_metadata(with_info(fits, INFO)) == INFO
    full = {"comment": f"{fits['comment']}x"}
    assert with_info(full, INFO) == full


@pytest.mark.parametrize(
    "changes",
    [
        {"width": "0"},
        {"height": "-1"},
        {"frames": "x"},
        {"thumbhash": ""},
        {"thumbhash": "<script>"},
        {"thumbhash": "A" * 90},
        {"alpha": None},
    ],
)
def test_facts_that_other_programs_stored_are_ignored_unless_they_are_valid(
    changes: dict[str, str | None],
) -> None:
    changed = {**INFO.to_metadata(), **changes}
    metadata = {name: value for name, value in changed.items() if value is not None}
    assert ImageInfo.from_metadata(metadata) is None


@pytest.mark.parametrize(
    "metadata",
    [{}, {"prompt": "x"}, {**PROMPT.to_metadata(), "seed": "x"}, {**PROMPT.to_metadata(), "time": ""}],
)
def test_unrelated_metadata_results_in_none(metadata: dict[str, str]) -> None:
    assert PromptMetadata.from_metadata(metadata) is None
