"""The metadata that is stored with an image: its dimensions, and the prompt or the name of the upload.

S3 accepts at most 2 KB of ASCII metadata for each object
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html). Therefore, text is
percent-encoded. Long text is truncated and then ends in "…".
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, unquote

MAX_METADATA_BYTES = 2048
"""Maximum total size of all names and values."""

_MAX_BYTES = {"prompt": 1000, "negative-prompt": 400, "model": 200}
"""Maximum size of each percent-encoded value in bytes. Including the other values and the names, even with
the prefix "x-amz-meta-", the metadata stays below 2 KB."""

_ORIGINAL_NAME = "original-name"
_MAX_NAME_BYTES = 800
"""Maximum size of a percent-encoded file name in bytes. A name of 255 bytes takes at most 765 bytes."""

_UNENCODED = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
_ELLIPSIS = "…"
_THUMBHASH = re.compile(r"[A-Za-z0-9+/]{6,60}={0,2}", re.ASCII)
_UNSAFE_SPACE = re.compile(r"^ | (?= )| $")


@dataclass(frozen=True, slots=True)
class PromptMetadata:
    """The request from which an image was generated.

    `size` has the form "1024x768", `seed` is None if the model uses no seed, and `time` is when the image was
    generated. Truncated text ends in "…".
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
        """Return the request that `to_metadata` recorded in the metadata, or None if there is none."""
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


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The facts about the picture in an image file.

    `width` and `height` are in pixels, as viewers show the image. `has_alpha` is whether it has transparent
    pixels, or may have them. `thumbhash` is a placeholder of about 25 bytes in Base64
    (https://evanw.github.io/thumbhash/).
    """

    width: int
    height: int
    frames: int
    has_alpha: bool
    thumbhash: str

    def to_metadata(self) -> dict[str, str]:
        """Return the metadata to store with the image."""
        return {
            "width": str(self.width),
            "height": str(self.height),
            "frames": str(self.frames),
            "alpha": "yes" if self.has_alpha else "no",
            "thumbhash": self.thumbhash,
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "ImageInfo | None":
        """Return the facts that `to_metadata` recorded in the metadata, or None if there are none."""
        try:
            width, height, frames = (int(metadata[name]) for name in ("width", "height", "frames"))
            info = cls(width, height, frames, metadata["alpha"] != "no", metadata["thumbhash"])
        except (KeyError, ValueError):
            return None
        is_valid = min(width, height, frames) > 0 and _THUMBHASH.fullmatch(info.thumbhash)
        return info if is_valid else None


def with_info(metadata: Mapping[str, str], info: ImageInfo) -> Mapping[str, str]:
    """Return the metadata with the facts about the picture, or unchanged if there is no room for them."""
    combined = {**metadata, **info.to_metadata()}
    size = sum(len(name) + len(value) for name, value in combined.items())
    return combined if size <= MAX_METADATA_BYTES else metadata


def without_info(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """Return the metadata without the facts about the picture."""
    info = ImageInfo.from_metadata(metadata)
    facts = {} if info is None else info.to_metadata()
    return {name: value for name, value in metadata.items() if name not in facts}


def name_metadata(name: str) -> dict[str, str]:
    """Return metadata that contains a file's original name. Callers store it if the name can't be a key."""
    return {_ORIGINAL_NAME: _encode(unicodedata.normalize("NFC", name), _MAX_NAME_BYTES)}


def original_name(metadata: Mapping[str, str]) -> str | None:
    """Return the name that `name_metadata` recorded in the metadata, or None if there is none."""
    stored = metadata.get(_ORIGINAL_NAME)
    return None if stored is None else unquote(stored)


def matches_original_name(stored: str, name: str) -> bool:
    """Return whether `stored` is `name`, or is truncated and `name` starts with the part before the "…"."""
    return stored == name or (stored.endswith(_ELLIPSIS) and name.startswith(stored.removesuffix(_ELLIPSIS)))


def shorten_values(metadata: Mapping[str, str], max_bytes: int) -> dict[str, str]:
    """Return the metadata with each value truncated to at most `max_bytes`, without splitting a character."""
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
    """Percent-encode the text, including spaces that would otherwise get lost.

    HTTP strips leading and trailing spaces, and the signing of S3 requests merges consecutive spaces.
    """
    return _UNSAFE_SPACE.sub("%20", quote(text, safe=_UNENCODED))
