"""Outcomes are remembered, for a time and in bounded space."""

import time
from pathlib import Path

import pytest

from app.core.errors import StateUnavailable
from app.services.idempotency import Ledger, Outcome


def _outcome(result: str = "{}", age: float = 0) -> Outcome:
    return Outcome("request", result, True, time.time() - age)


def test_what_was_kept_is_recalled(tmp_path: Path) -> None:
    outcome = Outcome("request", '{"images": []}', False, time.time())
    Ledger(tmp_path / "deep" / "db").keep("key", outcome, 60)
    assert Ledger(tmp_path / "deep" / "db").recall("key") == outcome
    assert Ledger(tmp_path / "deep" / "db").recall("other") is None


def test_the_later_outcome_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "db")
    for result in ("1", "2"):
        ledger.keep("key", _outcome(result), 60)
    recalled = ledger.recall("key")
    assert recalled
    assert recalled.result == "2"


def test_it_is_forgotten_in_time(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "db")
    ledger.keep("key", _outcome(age=61), 60)
    assert ledger.recall("key") is None


@pytest.mark.parametrize("bounds", [{"most_rows": 5}, {"most_bytes": 50}])
def test_the_oldest_make_room(tmp_path: Path, bounds: dict[str, int]) -> None:
    ledger = Ledger(tmp_path / "db", **bounds)
    for number in range(12):
        ledger.keep(f"key-{number}", _outcome("x" * 10, age=100 - number), 1000)
    kept = [number for number in range(12) if ledger.recall(f"key-{number}")]
    assert kept == [7, 8, 9, 10, 11]


def test_the_file_stays_bounded(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "db", most_bytes=100_000)
    for number in range(120):
        ledger.keep(f"{number:064}", _outcome("x" * 4000), 1000)
    assert (tmp_path / "db").stat().st_size < 250_000


@pytest.mark.parametrize("content", [b"no database, but longer than its header would be" * 9, None])
def test_a_file_that_can_not_be_used_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "db"
    path.write_bytes(content) if content else path.mkdir()
    with pytest.raises(StateUnavailable) as caught:
        Ledger(path).recall("key")
    assert str(path) not in caught.value.message
