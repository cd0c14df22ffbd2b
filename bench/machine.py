"""The machine on which the benchmarks ran."""

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.load import generator_name
from bench.report import Section, Table

_PACKAGES = ("gunicorn", "flask", "werkzeug", "boto3", "whitenoise")


def describe() -> Section:
    """Return a section with the processor, the kernel, the versions and the load of this machine."""
    packages = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    rows = (
        ("date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("processor", f"{os.cpu_count()} cores, {_processor()}"),
        ("memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("packages", packages),
        ("nginx", _output_of(["nginx", "-v"])),
        ("Node", _output_of(["node", "--version"])),
        ("load generator", generator_name()),
        ("load before the start (1 min)", f"{os.getloadavg()[0]:.2f}"),
    )
    return Section("Machine", "", [Table("Facts", ("what", "value"), rows)])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _output_of(command: list[str]) -> str:
    if not shutil.which(command[0]):
        return "not installed"
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().rpartition("/")[2]
