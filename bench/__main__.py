"""Run all benchmarks and write bench/results.md, or run one benchmark and print its results."""

import argparse
import importlib
import signal
import sys
from pathlib import Path

from bench import variants
from bench.machine import describe
from bench.plan import planned
from bench.progress import say
from bench.report import Section, render

PARTS = (
    *("hits", "worker", "miss", "uploads", "entries", "zipf", "memory", "decoding", "bound", "kills"),
    "variants",
)
_CHOICES = (*PARTS, *(f"variants.{part}" for part in variants.PARTS))
RESULTS = Path(__file__).parent / "results.md"

_TITLE = (
    "# Results\n\nWritten by `make bench`. Compare the ratios: absolute numbers depend on the machine.\n\n"
)


def main() -> None:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "part", nargs="?", choices=_CHOICES, metavar="part", help="run only this benchmark, and write no file"
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="number of rounds of each comparison (default 7)"
    )
    parser.add_argument("--seconds", type=int, default=1, help="duration of each measurement (default 1)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminate)
    machine = describe()
    with planned(arguments.rounds, arguments.seconds) as plan:
        parts = [arguments.part] if arguments.part else PARTS
        sections = [section for part in parts for section in _run(part, plan)]
    text = render([*sections, machine])
    if not arguments.part:
        RESULTS.write_text(_TITLE + text, encoding="utf-8")
        say(f"written to {RESULTS}")
    sys.stdout.write(text)


def _run(part: str, plan: object) -> list[Section]:
    say(f"== {part}")
    sections: Section | list[Section] = importlib.import_module(f"bench.{part}").run(plan)
    return sections if isinstance(sections, list) else [sections]


def _terminate(number: int, frame: object) -> None:
    """Exit by raising an exception, so that servers are stopped and temporary files are removed."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
