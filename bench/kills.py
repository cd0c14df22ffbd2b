"""Kills workers with `kill -9` under load, and looks for wrong responses, lost images and damaged caches."""

from bench.plan import Plan
from bench.progress import say
from bench.report import Section, Table, at_most
from tests.server.crashing import CACHE_BYTES, crash

_KILLS = 200

_METHOD = f"""\
{_KILLS} times, one of two workers is killed at a random moment, while six clients upload, overwrite and read
images through a cache of {CACHE_BYTES:,} bytes. The cache has room for only some of the images, so fills and
evictions occur all the time (tests/server/crashing.py, which `make test` runs with fewer kills)."""


def run(plan: Plan) -> Section:
    """Kill workers, then check every image that was acknowledged."""
    say(f"{_KILLS} kills")
    outcome = crash(plan.new_directory("kills"), _KILLS)
    section = Section("Killed workers", _METHOD)
    findings = len(outcome.report.missing) + len(outcome.report.strays) + abs(outcome.report.drift)
    section.figures = [
        at_most(f"{outcome.kills} × kill -9: responses with wrong bytes", len(outcome.wrong), 0, ""),
        at_most(f"{outcome.kills} × kill -9: acknowledged images lost", len(outcome.lost), 0, ""),
        at_most(f"{outcome.kills} × kill -9: differences that `flask cache check` finds", findings, 0, ""),
    ]
    responses = sorted(outcome.statuses.items())
    section.tables = [
        Table(
            "Responses during the kills",
            ("status", "responses"),
            [(str(status), f"{n:,}") for status, n in responses],
        )
    ]
    return section
