"""Benchmarks of variants: hits, making, crowds, refusals, pressure on other requests, memory, a stranger."""

import importlib

from bench.plan import Plan
from bench.progress import say
from bench.report import Section

PARTS = ("hits", "making", "crowds", "refusals", "pressure", "memory", "stranger")


def run(plan: Plan) -> list[Section]:
    """Run all benchmarks of variants."""
    sections = []
    for part in PARTS:
        say(f"= variants.{part}")
        section: Section = importlib.import_module(f"bench.variants.{part}").run(plan)
        sections.append(section)
    return sections
