"""Tests of the API against its OpenAPI document, with requests that schemathesis generates."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.server.running import ROOT, Running, running
from tests.services.generators import NAME

_MINUTES = os.environ.get("FUZZ_MINUTES")
SECONDS = int(60 * float(_MINUTES or "0.4"))
"""The limit for all requests together."""

_SEED = [] if _MINUTES else ["--seed", "1"]
"""A fixed seed, so that results are reproducible. `make fuzz` generates different requests."""

_KEY = "key-of-the-test"  # as in openapi.toml
_SCHEMATHESIS = [
    sys.executable,
    "-m",
    "schemathesis.cli",
    "--config-file",
    str(Path(__file__).with_name("openapi.toml")),
]


@pytest.mark.fuzz
@pytest.mark.timeout(5 * SECONDS + 200)
def test_every_call_does_what_the_document_says(tmp_path: Path) -> None:
    settings = {"API_KEYS": _KEY, "GENERATOR": NAME, "RATE_LIMIT_GENERATE": "none", "WEB_CONCURRENCY": "2"}
    with running(tmp_path, **settings) as server:
        calls = requests.get(f"{server.url}/openapi.json", timeout=60).json()["paths"].values()
        all_of_them = f"Tested: {sum(len(call.keys() - {'parameters'}) for call in calls)}\n"
        output = _run(server, tmp_path, SECONDS)
        if all_of_them not in output:  # on a busy machine, the time was too short for every call
            output = _run(server, tmp_path, 4 * SECONDS)
        assert all_of_them in output
        assert "Traceback" not in server.log


def _run(server: Running, directory: Path, seconds: int) -> str:
    """Run schemathesis for this time and return its output. It must find no failure."""
    options = [
        "--checks",
        "all",
        "--max-time",
        str(seconds),
        "--no-color",
        "--suppress-health-check",
        "all",
        *_SEED,
    ]
    found = subprocess.run(
        [*_SCHEMATHESIS, "run", f"{server.url}/openapi.json", *options],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout
