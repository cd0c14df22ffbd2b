"""docs/observability.md and the Grafana dashboard must name exactly the exported metrics and labels."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, Histogram

from app.cache.disk_cache import DiskCache
from app.observability.metrics import VARIANT_REFUSALS, Metrics

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((ROOT / "deploy" / "grafana.json").read_text(encoding="utf-8"))

_ROW = re.compile(r"^\| `(s3image_\w+)` \| ((?:`\w+`(?:, )?)*) *\|", re.MULTILINE)


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[dict[str, set[str]]]:
    """Return every metric and its labels."""
    with closing(DiskCache(tmp_path, 10**6)) as cache:
        metrics = Metrics(cache)
        ours = [
            metric for metric in vars(metrics).values() if isinstance(metric, Counter | Gauge | Histogram)
        ]
        names = {
            f"{metric._name}_total" if isinstance(metric, Counter) else metric._name: set(metric._labelnames)
            for metric in ours
        }
        for family in metrics._cache.collect():
            for sample in family.samples:
                names.setdefault(sample.name, set()).update(sample.labels)
        yield names


def test_the_table_lists_every_metric_with_its_labels(exported: dict[str, set[str]]) -> None:
    assert {name: set(re.findall(r"\w+", labels)) for name, labels in _ROW.findall(DOCUMENT)} == exported


def _expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def _named(text: str) -> set[str]:
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"s3image_\w+", text)}


def test_the_dashboard_shows_every_metric_and_no_others(exported: dict[str, set[str]]) -> None:
    assert _named(" ".join(_expressions())) == exported.keys()
    assert _named(json.dumps(DASHBOARD["templating"])) <= exported.keys()


def test_the_document_names_only_exported_metrics(exported: dict[str, set[str]]) -> None:
    assert _named(DOCUMENT) <= exported.keys()


@pytest.mark.parametrize("text", [*_expressions(), *re.findall(r"`([^`]*rate\([^`]*)`", DOCUMENT)])
def test_expressions_use_only_labels_that_their_metrics_have(
    exported: dict[str, set[str]], text: str
) -> None:
    assert text.count("(") == text.count(")")
    for name, selector in re.findall(r"(s3image_\w+)\{([^}]*)\}", text):
        labels = exported[re.sub(r"_(bucket|count|sum)$", "", name)] | {"job", "le"}
        assert set(re.findall(r"(\w+)(?==|!)", re.sub(r'"[^"]*"', "", selector))) <= labels
    for grouping in re.findall(r"by \(([^)]*)\)", text):
        (name,) = _named(text)
        assert set(re.findall(r"\w+", grouping)) <= exported[name] | {"le"}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at: dict[str, Any] = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        taken |= cells


def test_the_document_lists_the_reasons_for_which_variants_are_refused() -> None:
    (row,) = re.findall(r"^\| `s3image_variants_refused_total` .*$", DOCUMENT, re.MULTILINE)
    reasons = row.partition("error code: ")[2]
    assert set(re.findall(r"`(\w+)`", reasons)) == VARIANT_REFUSALS
