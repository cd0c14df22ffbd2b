"""How often and how long a model is asked."""

import itertools
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from app.core.errors import GeneratorTimeout, GeneratorUnreachable
from app.generators import transport as tries
from app.generators.transport import retry_after, seconds_left, within_deadline


def test_the_time_left_shrinks_to_nothing() -> None:
    def wait() -> None:
        assert 0 < seconds_left() <= 0.05
        for _ in itertools.count():
            seconds_left()

    with pytest.raises(GeneratorTimeout):
        within_deadline(0.05, wait)


def test_no_try_begins_that_could_not_end() -> None:
    asked = []

    def fail() -> None:
        asked.append(1)
        raise GeneratorUnreachable(wait=5)

    with pytest.raises(GeneratorUnreachable) as caught:
        within_deadline(4, fail)
    assert (len(asked), caught.value.retry_after) == (1, 5)


def test_pauses_grow_and_differ() -> None:
    class State:
        attempt_number = 1
        outcome = None

    first = {tries._pause(State()) for _ in range(20)}  # type: ignore[arg-type]
    State.attempt_number = 2
    second = {tries._pause(State()) for _ in range(20)}  # type: ignore[arg-type]
    assert len(first) > 10
    assert 0.5 <= min(first) <= max(first) <= 1 <= min(second) <= max(second) <= 1.5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3),
        (" 0.5 ", 0.5),
        ("0", 0),
        ("999999", 3600),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("inf", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds


def test_retry_after_as_a_date() -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    assert 250 < (retry_after({"retry-after": then}) or 0) <= 300
