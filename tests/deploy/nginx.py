"""Run nginx with `deploy/nginx.conf`, adapted, in its own process on a free port."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.ports import free_port
from tests.server.running import ROOT
from tests.waiting import wait_until

CONF = ROOT / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

_MAIN = """\
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include site.conf;
}}
"""


class Answer(NamedTuple):
    """An HTTP response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def differing(self, other: "Answer") -> set[str]:
        """Return the names of the headers that only one response has, or that have different values."""
        names = self.headers.keys() | other.headers.keys()
        return {name for name in names if self.headers.get(name) != other.headers.get(name)}


@contextmanager
def nginx(
    directory: Path, cache_dir: Path, upstream: str, *, prefix: str = "", **values: str
) -> Iterator[str]:
    """Run nginx over `cache_dir` in front of `upstream` (host:port); yield its URL.

    Its files are in `directory`. `values` replaces values of directives in the configuration, and `prefix`
    precedes the paths of images.
    """
    port = free_port()
    replaced = {
        "server": upstream,
        "listen": f"127.0.0.1:{port}",
        "alias": f"{cache_dir}/$s3_image_file",
        **values,
    }
    site = _rendered(replaced).replace("^/api/images/", f"^{prefix}/api/images/")
    (directory / "site.conf").write_text(site, encoding="utf-8")
    user = "user root;" if os.geteuid() == 0 else ""  # only their owner can read the temporary directories
    (directory / "nginx.conf").write_text(_MAIN.format(user=user), encoding="utf-8")
    process = subprocess.Popen(
        [str(NGINX), "-p", str(directory), "-c", "nginx.conf", "-e", "error.log"], stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", process, directory / "error.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def send(
    url: str, target: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Answer:
    """Send a request with exactly this target; return the response."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.putrequest(method, target, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        pairs = [(name.lower(), value) for name, value in response.getheaders()]
        assert len({name for name, _ in pairs}) == len(pairs), f"a header is repeated: {pairs}"
        return Answer(response.status, dict(pairs), response.read())
    finally:
        connection.close()


def _rendered(values: Mapping[str, str]) -> str:
    """Return the configuration with other values for these directives, each of which it has once."""
    lines = CONF.read_text(encoding="utf-8").splitlines()
    for name, value in values.items():
        (number,) = (n for n, line in enumerate(lines) if line.split()[:1] == [name] and ";" in line)
        lines[number] = f"{name} {value};"
    return "\n".join(lines)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    def answers() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        with suppress(OSError):
            send(url, "/no-such-page")
            return True
        return False

    wait_until(answers, seconds=90)
