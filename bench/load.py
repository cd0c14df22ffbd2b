"""Generate load, with wrk or our own generator.

Each connection is kept alive, and sends the next request as soon as it has received a response.
"""

import json
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import ROOT, cpu_seconds
from bench.servers import Server

CONNECTIONS = 32

_ROTATION = """
local paths = {}
for path in io.lines("%s") do paths[#paths + 1] = path end
local position = 0
request = function()
  position = position %% #paths + 1
  return wrk.format("GET", paths[position])
end
"""


@dataclass(frozen=True)
class Load:
    """The result of a run.

    `rate` is the number of responses per second, `cpu` the server's CPU time for each response in
    microseconds, and `generator` the share of one core that the load generator used.
    """

    rate: float
    cpu: float
    generator: float


@dataclass(frozen=True)
class _Run:
    responses: int
    rate: float
    failures: int


def generator_name() -> str:
    """Return a description of the load generator on this machine."""
    return "wrk -t1 -c32" if shutil.which("wrk") else "bench.generator, 2 processes × 16 connections"


def put_load(
    server: Server, paths: Sequence[str], seconds: int, headers: Mapping[str, str] | None = None
) -> Load:
    """Request `paths` from `server` in turn for `seconds`. Raises `RuntimeError` if any request fails."""
    used = _children_seconds()
    cpu = cpu_seconds(server.pid)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        command = _wrk if shutil.which("wrk") else _own
        run = command(server.port, paths, seconds, dict(headers or {}), Path(directory))
    elapsed = time.monotonic() - began
    cpu = cpu_seconds(server.pid) - cpu
    if run.failures or not run.responses:
        raise RuntimeError(f"{server.name}: {run.failures} failures among {run.responses} responses")
    return Load(run.rate, cpu / run.responses * 1e6, (_children_seconds() - used) / elapsed)


def shuffled(paths: Sequence[str]) -> list[str]:
    """Return the paths in a fixed pseudorandom order."""
    return random.Random(1).sample(list(paths), len(paths))


def _wrk(port: int, paths: Sequence[str], seconds: int, headers: dict[str, str], scratch: Path) -> _Run:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    command += [f"-H{name}: {value}" for name, value in headers.items()]
    if len(paths) > 1:
        (scratch / "paths").write_text("\n".join(paths))
        (scratch / "rotate.lua").write_text(_ROTATION % (scratch / "paths"))
        command.append(f"-s{scratch / 'rotate.lua'}")
    text = _output([*command, f"http://127.0.0.1:{port}{paths[0]}"])
    responses = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if responses is None or rate is None:
        raise RuntimeError(f"Unexpected output of wrk: {text}")
    failures = sum(map(int, re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", text)))
    return _Run(int(responses[1]), float(rate[1]), failures)


def _own(port: int, paths: Sequence[str], seconds: int, headers: dict[str, str], scratch: Path) -> _Run:
    plan = {"port": port, "paths": list(paths), "seconds": seconds, "headers": headers}
    (scratch / "plan.json").write_text(json.dumps(plan))
    output = json.loads(_output([sys.executable, "-m", "bench.generator", str(scratch / "plan.json")]))
    return _Run(output["responses"], output["responses"] / seconds, output["failures"])


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
