"""The metadata that a store keeps with an image: the prompt that it was generated from, or its original name.

S3 accepts 2 KB of it in all, in ASCII (https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html).
Texts are therefore percent-encoded, and long ones truncated, which a final "…" shows.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, unquote

_MAX_BYTES = {"prompt": 1100, "negative-prompt": 400, "model": 200}
"""Encoded bytes of each text. With the names and the short values they stay below 2 KB."""

_ORIGINAL_NAME = "original-name"
_MAX_NAME_BYTES = 800
"""Encoded bytes of a file name: one of 255 bytes takes 765 at most."""

_UNENCODED = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
_ELLIPSIS = "…"
_UNSAFE_SPACE = re.compile(r"^ | (?= )| $")


@dataclass(frozen=True, slots=True)
class PromptMetadata:
    """The request that an image was generated from.

    `size` is like "1024x768"; `seed` is None if the model has none; `time` is when the image was generated. A
    text that was truncated ends in "…".
    """

    prompt: str
    negative_prompt: str
    model: str
    seed: int | None
    size: str
    time: datetime

    def to_metadata(self) -> dict[str, str]:
        """Return the metadata to store with the image."""
        seed = {} if self.seed is None else {"seed": str(self.seed)}
        return {
            "prompt": _encode(self.prompt, _MAX_BYTES["prompt"]),
            "negative-prompt": _encode(self.negative_prompt, _MAX_BYTES["negative-prompt"]),
            "model": _encode(self.model, _MAX_BYTES["model"]),
            "size": self.size,
            "time": self.time.isoformat(timespec="seconds"),
            **seed,
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "PromptMetadata | None":
        """Return the request that `to_metadata` has written; None if the metadata holds none."""
        try:
            return cls(
                prompt=unquote(metadata["prompt"]),
                negative_prompt=unquote(metadata.get("negative-prompt", "")),
                model=unquote(metadata["model"]),
                seed=int(metadata["seed"]) if "seed" in metadata else None,
                size=metadata["size"],
                time=datetime.fromisoformat(metadata["time"]),
            )
        except (KeyError, ValueError):
            return None


def name_metadata(name: str) -> dict[str, str]:
    """Return the metadata that stores a file's original name, for names that a key can't hold."""
    return {_ORIGINAL_NAME: _encode(unicodedata.normalize("NFC", name), _MAX_NAME_BYTES)}


def original_name(metadata: Mapping[str, str]) -> str | None:
    """Return the name that `name_metadata` has stored; None if there is none."""
    stored = metadata.get(_ORIGINAL_NAME)
    return None if stored is None else unquote(stored)


def matches_original_name(stored: str, name: str) -> bool:
    """Return whether `stored`, an original name that may be truncated, can be that of `name`."""
    return stored == name or (stored.endswith(_ELLIPSIS) and name.startswith(stored.removesuffix(_ELLIPSIS)))


def shorten_values(metadata: Mapping[str, str], max_bytes: int) -> dict[str, str]:
    """Return the metadata with each value truncated to `max_bytes`, between two characters of its text."""
    return {
        name: value if len(value) <= max_bytes else _encode(unquote(value), max_bytes)
        for name, value in metadata.items()
    }


def _encode(text: str, max_bytes: int) -> str:
    encoded = _quote(text)
    if len(encoded) <= max_bytes:
        return encoded

    def truncated_bytes(length: int) -> int:
        return len(_quote(text[:length] + _ELLIPSIS))

    length = bisect_right(range(max_bytes), max_bytes, key=truncated_bytes) - 1
    return _quote(text[:length] + _ELLIPSIS)


def _quote(text: str) -> str:
    """Encode also the spaces that get lost: HTTP strips values, and signatures fold spaces in a row."""
    return _UNSAFE_SPACE.sub("%20", quote(text, safe=_UNENCODED))
