"""The tests that SECURITY.md names exist, and gunicorn's parser is as strict as it says."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.server.running import GUNICORN, ROOT

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
CITED_TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


def test_security_md_cites_tests() -> None:
    assert len(CITED_TESTS) > 25
    assert TEXT.count("`tests/") == len(CITED_TESTS)


@pytest.mark.parametrize(("file", "name"), sorted(set(CITED_TESTS)))
def test_cited_tests_exist(file: str, name: str) -> None:
    assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8")


STRICT_SETTINGS = {
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


def test_gunicorns_parser_is_as_strict_as_documented(tmp_path: Path) -> None:
    directories = {name: str(tmp_path / name) for name in ("CACHE_DIR", "LOCAL_STORE_DIR", "STATE_DIR")}
    printed = subprocess.run(
        [*GUNICORN, "--print-config"],
        cwd=ROOT,
        env={**os.environ, **directories},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = dict(re.findall(r"^(\w+) += (.*)$", printed, re.MULTILINE))
    assert {name: found[name].strip("[]") for name in STRICT_SETTINGS} == STRICT_SETTINGS
    assert all(name in TEXT for name in STRICT_SETTINGS)
