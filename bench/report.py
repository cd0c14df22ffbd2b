"""The results of benchmarks, and how they are rendered as Markdown."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """A number with a target: the target, the measured value, and whether the target is reached."""

    what: str
    target: str
    measured: str
    reached: bool


@dataclass(frozen=True)
class Table:
    """Rows of text cells under a title."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Section:
    """The results of one benchmark.

    `method` describes the measurement. `notes` says what could not be measured.
    """

    title: str
    method: str
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def at_least(what: str, measured: float, target: float) -> Figure:
    """Return the figure for a ratio that must be at least `target`."""
    return Figure(what, f"≥ {target:.2f} ×", f"{measured:.2f} ×", measured >= target)


def at_most(what: str, measured: float, target: float, unit: str) -> Figure:
    """Return the figure for a number that must be at most `target`."""
    return Figure(
        what, f"≤ {target:g} {unit}".rstrip(), f"{measured:.3g} {unit}".rstrip(), measured <= target
    )


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios within each round. Disturbances affect both sides of a round alike."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def render(sections: Sequence[Section]) -> str:
    """Return the sections as Markdown: first all figures, then each section with its tables."""
    figures = [figure for section in sections for figure in section.figures]
    rows = [(f.what, f.target, f.measured, "yes" if f.reached else "**no**") for f in figures]
    parts = [_table(Table("Figures", ("what", "target", "measured", "reached"), rows))] if rows else []
    return "\n".join(parts + [_section(section) for section in sections])


def _section(section: Section) -> str:
    tables = "\n".join(_table(table, level=3) for table in section.tables)
    notes = "".join(f"- {note}\n" for note in section.notes)
    return f"## {section.title}\n\n{section.method}\n\n{tables}{notes}"


def _table(table: Table, level: int = 2) -> str:
    lines = [f"{'#' * level} {table.title}", "", _row(table.head), _row(["---"] * len(table.head))]
    return "\n".join([*lines, *map(_row, table.rows), ""]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
