"""Each promise of SECURITY.md names a test that is there, and gunicorn's parser is as strict as it says."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.server.running import GUNICORN, ROOT

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


def test_it_names_tests() -> None:
    assert len(NAMED) > 25
    assert TEXT.count("`tests/") == len(NAMED)


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_each_test_that_it_names_is_there(file: str, name: str) -> None:
    assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8")


STRICT = {
    "permit_obsolete_folding": "False",
    "permit_unconventional_http_method": "False",
    "permit_unconventional_http_version": "False",
    "casefold_http_method": "False",
    "strip_header_spaces": "False",
    "header_map": "drop",
    "limit_request_fields": "100",
    "limit_request_field_size": "8190",
    "forwarder_headers": "",
    "secure_scheme_headers": "{}",
}


def test_gunicorns_parser_is_as_strict_as_it_says(tmp_path: Path) -> None:
    places = {name: str(tmp_path / name) for name in ("CACHE_DIR", "LOCAL_STORE_DIR", "STATE_DIR")}
    printed = subprocess.run(
        [*GUNICORN, "--print-config"],
        cwd=ROOT,
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = dict(re.findall(r"^(\w+) += (.*)$", printed, re.MULTILINE))
    assert {name: found[name].strip("[]") for name in STRICT} == STRICT
    assert all(name in TEXT for name in STRICT)
