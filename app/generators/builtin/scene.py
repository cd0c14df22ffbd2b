"""What a prompt asks the painter to paint."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from random import Random

from app.generators.base import GenerationRequest
from app.generators.builtin.words import find_tags

COLOURS = [
    "red",
    "orange",
    "yellow",
    "gold",
    "green",
    "teal",
    "blue",
    "purple",
    "pink",
    "brown",
    "white",
    "black",
]

_GROUNDS = ("space", "abstract", "volcano", "city", "island", "desert", "mountains", "forest")
"""Which scene leads where a prompt names several: the first of them; the others become details."""

_FREE_GROUNDS = ("mountains", "mountains", "sea", "meadow", "forest", "desert", "island")
_FREE_TIMES = ("sunset", "sunset", "dawn", "dawn", "day", "dusk")


@dataclass(frozen=True, slots=True)
class Scene:
    """A landscape (`ground`) at a `time`, with the tags that were named, and those to be left out."""

    ground: str
    time: str
    tags: frozenset[str]
    banned: frozenset[str]
    colours: tuple[str, ...]

    def has(self, tag: str, default: bool = False) -> bool:
        """Whether the tag belongs into the picture: named, or there by `default` and not banned."""
        return tag not in self.banned and (default or tag in self.tags)

    def has_any(self, *tags: str) -> bool:
        """Whether at least one of the tags belongs into the picture."""
        return any(self.has(tag) for tag in tags)


def stable_random(*parts: object) -> Random:
    """A random source that depends on the parts alone; any text is allowed, lone surrogates too."""
    joined = "\x1f".join(str(part) for part in parts)
    digest = hashlib.sha256(joined.encode("utf-8", "surrogatepass")).digest()
    return Random(int.from_bytes(digest, "big"))


def read_scene(request: GenerationRequest) -> Scene:
    """The scene of a request: from its words, and where these say nothing from a hash of the prompt."""
    named, refused = find_tags(request.prompt)
    banned = frozenset(refused) | frozenset(find_tags(request.negative_prompt)[0])
    tags = [tag for tag in named if tag not in banned]
    rng = stable_random("scene", request.prompt)
    return Scene(
        ground=_ground(tags, banned, rng),
        time=_time(tags, banned, rng),
        tags=frozenset(tags),
        banned=banned,
        colours=tuple(tag for tag in tags if tag in COLOURS),
    )


def _ground(tags: list[str], banned: Collection[str], rng: Random) -> str:
    chosen = rng.choice([ground for ground in _FREE_GROUNDS if ground not in banned] or ["abstract"])
    for ground in _GROUNDS:
        if ground in tags:
            return ground
    if {"sea", "beach", "boat", "lighthouse"} & set(tags):
        return "sea"
    if "cactus" in tags:
        return "desert"
    if "palms" in tags:
        return "island"
    if {"meadow", "flowers", "house", "trees", "rainbow"} & set(tags):
        return "meadow"
    return "mountains" if {"lake", "aurora", "winter"} & set(tags) else chosen


def _time(tags: list[str], banned: Collection[str], rng: Random) -> str:
    chosen = rng.choice([time for time in _FREE_TIMES if time not in banned] or ["day"])
    for time in ("night", "sunset", "dawn", "dusk", "day"):
        if time in tags:
            return time
    if {"moon", "stars", "aurora", "space"} & set(tags):
        return "night"
    if {"storm"} & set(tags):
        return "dusk"
    return "day" if {"rainbow", "rain", "sun", "snow"} & set(tags) else chosen
