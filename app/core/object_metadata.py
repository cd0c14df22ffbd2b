"""What a store keeps with an image as metadata: the request that drew it, or the name it was uploaded under.

S3 takes 2 KB of it in all, in ASCII (https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html),
so texts are percent-encoded and cut.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, unquote

_BOUNDS = {"prompt": 1100, "negative-prompt": 400, "model": 200}
"""Bytes of each text, encoded; with the names and the short values they stay below 2 KB."""

_ORIGINAL_NAME = "original-name"
_NAME_BOUND = 800
"""Bytes of a file name, encoded: one of 255 bytes takes 765 at most."""

_READABLE = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
_CUT = "…"
_UNSAFE_SPACE = re.compile(r"^ | (?= )| $")


@dataclass(frozen=True, slots=True)
class PromptMetadata:
    """A request to draw. `size` is like 1024x768; a text that was too long ends in "…"; `seed` is
    None where the model has none.
    """

    prompt: str
    negative_prompt: str
    model: str
    seed: int | None
    size: str
    time: datetime

    def to_metadata(self) -> dict[str, str]:
        """Names and values that a store keeps."""
        seed = {} if self.seed is None else {"seed": str(self.seed)}
        return {
            "prompt": _encode(self.prompt, _BOUNDS["prompt"]),
            "negative-prompt": _encode(self.negative_prompt, _BOUNDS["negative-prompt"]),
            "model": _encode(self.model, _BOUNDS["model"]),
            "size": self.size,
            "time": self.time.isoformat(timespec="seconds"),
            **seed,
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "PromptMetadata | None":
        """What `to_metadata` made; None where it is something else."""
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
    """Return the metadata that keeps a file's name which a key can't hold as it is."""
    return {_ORIGINAL_NAME: _encode(unicodedata.normalize("NFC", name), _NAME_BOUND)}


def original_name(metadata: Mapping[str, str]) -> str | None:
    """Return the name that `name_metadata` kept; None if there is none."""
    kept = metadata.get(_ORIGINAL_NAME)
    return None if kept is None else unquote(kept)


def may_be_name(kept: str, name: str) -> bool:
    """Return whether the original name `kept`, which a store may have cut, is that of `name`."""
    return kept == name or (kept.endswith(_CUT) and name.startswith(kept.removesuffix(_CUT)))


def shortened(metadata: Mapping[str, str], most: int) -> dict[str, str]:
    """Return the metadata with values of at most `most` bytes, cut between the characters of their texts."""
    return {
        name: value if len(value) <= most else _encode(unquote(value), most)
        for name, value in metadata.items()
    }


def _encode(text: str, most: int) -> str:
    encoded = _quote(text)
    if len(encoded) <= most:
        return encoded
    kept = bisect_right(range(most), most, key=lambda length: len(_quote(text[:length] + _CUT))) - 1
    return _quote(text[:kept] + _CUT)


def _quote(text: str) -> str:
    """HTTP drops spaces at a value's ends, and signatures fold those in a row."""
    return _UNSAFE_SPACE.sub("%20", quote(text, safe=_READABLE))
