"""The size limit of the cache under load: the bytes on disk are sampled while many threads write."""

import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from bench.plan import Plan
from bench.processes import is_stopped, running
from bench.progress import say
from bench.report import Figure, Section, Table

PROCESSES, THREADS = 4, 8
OBJECTS = 2_000
BOUND = 11_000_000
"""The size limit in bytes: about a tenth of the total size of all objects, which have 1 to 110 KB each."""

_SECONDS = 15
_PAUSE_SECONDS = 0.02

_METHOD = f"""\
{PROCESSES} processes with {THREADS} threads each fetch and upload {OBJECTS:,} objects of 1 to 110 KB through
a cache of at most {BOUND:,} bytes, for {_SECONDS} s. For each sample, all processes are stopped (SIGSTOP),
so that the sample shows a single moment. A sample is the size of all blocks of the cache directory and of
the files and directories in it."""


def run(plan: Plan) -> Section:
    """Start the writers, and sample the bytes on disk until the writers are done."""
    directory = plan.new_directory("bound")
    root = directory / "cache"
    command = (sys.executable, "-m", "bench.writers", str(root), str(BOUND), str(_SECONDS))
    log = directory / "writers.log"
    with ExitStack() as stack:
        say(f"{PROCESSES * THREADS} writers for {_SECONDS} s")
        writers = [
            stack.enter_context(running((*command, str(seed)), log, env={"PYTHONWARNINGS": "default"}))
            for seed in range(PROCESSES)
        ]
        samples = []
        while all(writer.poll() is None for writer in writers):
            samples.append(_frozen_usage(root, [writer.pid for writer in writers]))
            time.sleep(_PAUSE_SECONDS)
        codes = [writer.wait() for writer in writers]
    if any(codes):
        raise RuntimeError(f"writers ended with {codes}: {log.read_text()[-2000:]}")
    return _section(samples, log.read_text())


def _section(samples: list[int], output: str) -> Section:
    over = max(0, max(samples) - BOUND)
    full = sum(sample > BOUND * 0.8 for sample in samples)
    rows = [
        ("samples", f"{len(samples):,}, of which {full:,} above 80 % of the bound"),
        ("highest sample", f"{max(samples):,} bytes, {max(samples) / BOUND:.1%} of the bound"),
        ("last sample", f"{samples[-1]:,} bytes"),
        *(("a process", line) for line in output.strip().splitlines()),
    ]
    section = Section("The bound", _METHOD, [Table("Bytes on disk", ("what", "measured"), rows)])
    name = f"bytes on disk over the bound, {PROCESSES * THREADS} writers in {PROCESSES} processes"
    section.figures = [Figure(name, "0", f"{over:,}", over == 0 and full > 0)]
    return section


def _frozen_usage(root: Path, pids: list[int]) -> int:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 2
        while not all(map(is_stopped, pids)) and time.monotonic() < deadline:
            time.sleep(0.0005)
        return _usage(root)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _usage(root: Path) -> int:
    """Return the bytes that `du -s` counts."""
    if not root.exists():
        return 0
    total, directories = root.stat().st_blocks, [str(root)]
    while directories:
        with os.scandir(directories.pop()) as entries:
            for entry in entries:
                total += entry.stat(follow_symlinks=False).st_blocks
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
    return total * 512
