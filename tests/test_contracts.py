"""The suites that users run over their own stores: what they say of a store that is wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.core.objects import ObjectFacts, ObjectPage, PutResult, StoredObject
from app.stores.base import BaseStore
from tests.contracts import StoreContract
from tests.stores.test_own_store import MemoryStore

SUITE = StoreContract()


class Creating(MemoryStore):
    """Says that each put has created the object."""

    def put(self, *args: Any, **kwargs: Any) -> PutResult:
        return PutResult(super().put(*args, **kwargs).facts, True)


class Cutting(MemoryStore):
    """Loses the end of each object."""

    def get(self, key: str, *, if_none_match: str | None = None) -> StoredObject | None:
        stored = super().get(key, if_none_match=if_none_match)
        if stored is not None:
            stored.body.truncate(max(0, stored.facts.size - 1))  # type: ignore[attr-defined]
        return stored


class Forgetting(MemoryStore):
    """Keeps no metadata."""

    def head(self, key: str) -> ObjectFacts:
        return replace(super().head(key), metadata={})


class Repeating(MemoryStore):
    """Gives the same page for each cursor."""

    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        return super().list(prefix, limit=limit)


class Reversing(MemoryStore):
    """Lists in another order, with other sizes."""

    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        page = super().list(prefix, limit=limit, cursor=cursor)
        return ObjectPage(tuple(replace(facts, size=6) for facts in reversed(page.objects)), page.cursor)


def _of_pages(store: BaseStore) -> None:
    SUITE.test_list_returns_pages(store, 2)


def _of_bytes(store: BaseStore) -> None:
    SUITE.test_get_returns_what_put_stored(store, 5 * 1024 * 1024)


def _of_metadata(store: BaseStore) -> None:
    SUITE.test_metadata_stays_with_its_version(store, {"prompt": "a cat"})


@pytest.mark.parametrize(
    ("store", "check", "shown"),
    [
        (Creating, SUITE.test_put_without_overwrite_keeps_the_object, ["_put(", "overwrite=False"]),
        (Creating, SUITE.test_one_of_many_puts_creates_the_object, ["{True: 16}"]),
        (Cutting, _of_bytes, ["(5242879, ", "(5242880, "]),
        (Forgetting, _of_metadata, ["{'head': {}}", "{'head': {'prompt': 'a cat'}}"]),
        (Repeating, _of_pages, ["p/0.png", "p/2.png"]),
        (Reversing, SUITE.test_list_is_ordered_by_key, ["b/a.png", "a-b/c.png"]),
    ],
)
def test_a_failure_shows_the_values(
    store: type[BaseStore], check: Callable[[BaseStore], None], shown: list[str]
) -> None:
    with pytest.raises(AssertionError) as caught:
        check(store())
    said = str(caught.value)
    assert [text for text in shown if text not in said] == [], said
    assert len(said) < 20_000


def test_a_store_that_is_not_empty_is_said_to_be_so() -> None:
    store = MemoryStore()
    begins = StoreContract.__dict__["_starts_empty"].__wrapped__
    begins(SUITE, store)
    store.put("left.png", b"x", content_type="image/png")
    with pytest.raises(
        pytest.fail.Exception, match=r"needs an empty store, and this one holds \['left.png'\]"
    ):
        begins(SUITE, store)


def test_a_store_that_cannot_be_listed_passes_to_the_tests_that_say_so() -> None:
    class Unlistable(MemoryStore):
        def list(self, *args: Any, **kwargs: Any) -> ObjectPage:
            raise RuntimeError("not written yet")

    StoreContract.__dict__["_starts_empty"].__wrapped__(SUITE, Unlistable())
