"""A stranger who requests all permitted variants of an image does not displace the images of the others."""

import itertools
import random
import time
from pathlib import Path

import pytest

from app.cache.lookup import CacheStatus
from app.config.settings import Config
from app.services.signing import UrlSigner
from app.services.variant_rules import VariantRules
from tests.cache.conftest import MakeCache, Origin, immutable_key, read
from tests.cache.test_derive import Maker

CACHE_BYTES = 12_000_000
IMAGES = 3000
"""Number of images that the crowd requests. Less than a fifth of them fit into the cache."""

VICTIM = immutable_key(IMAGES)


class Crowd:
    """Many clients, who request a few images often and most images rarely (Zipf's law)."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker
        self._random = random.Random(7)
        self._keys = [immutable_key(number) for number in range(IMAGES)]
        self._weights = list(itertools.accumulate(1 / rank for rank in range(1, IMAGES + 1)))
        maker.origin.objects |= dict.fromkeys(self._keys, bytes(20_000))

    def hit_ratio(self, requests: int, stranger: "Stranger | None" = None) -> float:
        """Send requests. After each, the stranger sends one. Return the ratio of the crowd's hits."""
        hits = 0
        for key in self._random.choices(self._keys, cum_weights=self._weights, k=requests):
            found = self._maker.cache.fetch(key, self._maker.origin.load(key))
            hits += found.status is CacheStatus.HIT
            read(found)
            if stranger is not None:
                stranger.ask()
        return hits / requests


class Stranger:
    """A client who requests all these variants of one image again and again."""

    def __init__(self, maker: Maker, names: list[str]) -> None:
        self._maker = maker
        self._names = itertools.cycle(names)
        maker.origin.objects[VICTIM] = bytes(3000)

    def ask(self) -> None:
        """Send a request."""
        read(self._maker.fetch(VICTIM, next(self._names)))


def _listed() -> list[str]:
    """Return the variants that anyone may request without any setting."""
    config = Config.from_env({})
    rules = VariantRules("on", config.variant_widths, dict(config.variant_presets), UrlSigner(()))
    return sorted(rules.listed)


def test_anyone_can_make_less_than_200_variants_of_an_image() -> None:
    """`docs/limits.md` states the number."""
    text = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
    assert len(_listed()) < 200
    assert f"at most {len(_listed())} variants of an image" in text


def test_the_hit_ratio_of_others_hardly_falls(
    make_cache: MakeCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count(time.time_ns(), 10**9)  # each access is later than the one before
    monkeypatch.setattr(time, "time_ns", lambda: next(seconds))
    maker = Maker(make_cache(CACHE_BYTES), origin)
    crowd = Crowd(maker)
    crowd.hit_ratio(1000)
    before = crowd.hit_ratio(1000)
    during = crowd.hit_ratio(1000, Stranger(maker, _listed()))
    assert 0.5 < before < 0.9
    assert during > before - 0.07
    assert maker.made < 2 * len(_listed())
    assert maker.cache.check().is_clean
