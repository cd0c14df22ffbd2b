"""The deadline, retries and Retry-After."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from app.core.errors import GeneratorTimeout, GeneratorUnreachable
from app.generators import transport
from app.generators.transport import deadline, retry, retry_after, seconds_left


def test_seconds_left_decreases_and_raises_after_the_deadline() -> None:
    with deadline(0.05):
        assert 0 < seconds_left() <= 0.05
        time.sleep(0.06)
        with pytest.raises(GeneratorTimeout):
            seconds_left()


def test_a_pause_beyond_the_deadline_ends_the_retries() -> None:
    attempts = []

    def fail() -> None:
        attempts.append(1)
        raise GeneratorUnreachable(wait=5)

    with deadline(4), pytest.raises(GeneratorUnreachable) as caught:
        retry(fail)
    assert (len(attempts), caught.value.retry_after) == (1, 5)


def test_pauses_double_and_have_jitter() -> None:
    first = {transport._pause_seconds(1, None) for _ in range(20)}
    second = {transport._pause_seconds(2, None) for _ in range(20)}
    assert len(first) > 10
    assert 0.5 <= min(first) <= max(first) <= 1 <= min(second) <= max(second) <= 1.5


def test_a_pause_is_at_least_retry_after() -> None:
    assert 3 <= transport._pause_seconds(1, 3) <= 3.1


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
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds


def test_retry_after_as_a_date() -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    assert 250 < (retry_after({"retry-after": then}) or 0) <= 300
