"""kill -9 of workers under load: what was served wrong, lost, or left in disorder."""

from bench.plan import Plan
from bench.progress import say
from bench.report import Section, Table, at_most
from tests.server.crashing import CACHE_BYTES, crash

_KILLS = 200

_METHOD = f"""\
{_KILLS} times a worker of two is killed at a random moment, while six clients upload, overwrite and read
images through a cache of {CACHE_BYTES:,} bytes. It holds a part of them, so there are fills and evictions
all the time (tests/server/crashing.py, which `make test` runs with fewer kills)."""


def run(plan: Plan) -> Section:
    """Kill, then look at everything that was acknowledged."""
    say(f"{_KILLS} kills")
    outcome = crash(plan.new_directory("kills"), _KILLS)
    section = Section("Killed workers", _METHOD)
    disorder = len(outcome.report.missing) + len(outcome.report.strays) + abs(outcome.report.drift)
    section.figures = [
        at_most(f"{outcome.kills} × kill -9: answers with wrong bytes", len(outcome.wrong), 0, ""),
        at_most(f"{outcome.kills} × kill -9: acknowledged images lost", len(outcome.lost), 0, ""),
        at_most(f"{outcome.kills} × kill -9: what `check` finds", disorder, 0, ""),
    ]
    answers = sorted(outcome.statuses.items())
    section.tables = [
        Table("Answers meanwhile", ("status", "answers"), [(str(status), f"{n:,}") for status, n in answers])
    ]
    return section
