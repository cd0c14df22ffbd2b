"""The limits on the facts of an object."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from app.core.errors import StoreError
from app.core.objects import ObjectFacts

GOOD: dict[str, Any] = {
    "key": "a.png",
    "size": 10,
    "content_type": "image/png",
    "etag": '"e"',
    "last_modified": datetime(2026, 11, 22, tzinfo=UTC),
}

BAD: list[dict[str, Any]] = [
    {"size": -1},
    {"size": 2**63},
    {"size": 10**30},
    {"size": 1.0},
    {"size": "10"},
    {"size": None},
    {"etag": ""},
    {"etag": "e"},
    {"etag": '"e'},
    {"etag": '"a"b"'},
    {"etag": '"a", "b"'},
    {"etag": '"a\r\nX: y"'},
    {"etag": '"a\n'},
    {"etag": '"é"'},
    {"etag": 'w/"e"'},
    {"last_modified": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)},
    {"last_modified": datetime(9999, 12, 31, tzinfo=UTC)},
    {"last_modified": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=12)))},
]


@pytest.mark.parametrize("changed", BAD, ids=str)
def test_invalid_facts_raise_store_error(changed: dict[str, Any]) -> None:
    with pytest.raises(StoreError):
        ObjectFacts(**GOOD | changed)


@pytest.mark.parametrize(
    "changed",
    [{}, {"size": 0}, {"size": 2**63 - 1}, {"etag": 'W/"e"'}, {"etag": '""'}],
    ids=str,
)
def test_facts_at_the_limits_are_accepted(changed: dict[str, Any]) -> None:
    facts = ObjectFacts(**GOOD | changed)
    assert all(getattr(facts, name) == value for name, value in (GOOD | changed).items())
