"""Tests of slots, which all processes share, and which become free even if a process is killed."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app.core.errors import GeneratorBusy, StateUnavailable
from app.services import slots as slots_module
from app.services.slots import Slots

ROOT = Path(__file__).parent.parent.parent

TAKE_SLOTS = """
import sys, time
from pathlib import Path
from app.services.slots import Slots

with Slots(Path(sys.argv[1]), 3).take(2) as taken:
    print(taken, flush=True)
    time.sleep(60)
"""


def test_as_many_slots_are_taken_as_are_free(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "slots", 3)
    with slots.take(2) as first, slots.take(4) as second:
        assert (first, second) == (2, 1)
        with pytest.raises(GeneratorBusy), slots.take(1):
            pass
    with slots.take(9) as all_of_them:
        assert all_of_them == 3


def test_a_request_waits_for_a_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module, "_WAIT_SECONDS", 30)
    slots = Slots(tmp_path, 1)
    held = threading.Event()

    def hold() -> None:
        with slots.take(1):
            held.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    with slots.take(1) as taken:
        assert taken == 1
    thread.join()


def test_slots_are_free_after_an_exception(tmp_path: Path) -> None:
    slots = Slots(tmp_path, 1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), slots.take(1):
            raise ZeroDivisionError


def test_the_slots_of_a_killed_process_are_free(tmp_path: Path) -> None:
    slots = Slots(tmp_path, 3)
    command = [sys.executable, "-c", TAKE_SLOTS, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"2\n"
        with slots.take(3) as taken:
            assert taken == 1
        process.send_signal(signal.SIGKILL)
    with slots.take(3) as taken:
        assert taken == 3


def test_a_directory_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnavailable), Slots(tmp_path / "file" / "slots", 1).take(1):
        pass
