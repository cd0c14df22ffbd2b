"""nginx as a static file server, and in front of our server with `deploy/nginx.conf`."""

import getpass
import os
import re
from pathlib import Path

from bench.processes import ROOT
from bench.product import WORKERS
from bench.servers import Start

DEPLOYED = ROOT / "deploy" / "nginx.conf"

# There is no tcp_nopush, because it delayed some responses of 100 KB by 40 ms in our measurements.
_STATIC = """
events {{ worker_connections 1024; }}
http {{
    default_type image/png;
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{port} reuseport;
        root {files};
    }}
}}
"""


def static(files: Path, scratch: Path, port: int) -> Start:
    """Return how to start nginx for the files in `files`."""
    return _start(_STATIC.format(port=port, files=files), scratch)


def in_front(scratch: Path, port: int, *, upstream: int, cache_dir: Path) -> Start:
    """Return how to start nginx with `deploy/nginx.conf`. Its addresses and directories are replaced.

    Raises `ValueError` if the configuration lacks one of these, since a different server or cache would be
    measured.
    """
    text = DEPLOYED.read_text()
    for what, pattern, value in (
        ("listen", r"(?m)^(\s*listen\s+)[^\s;]+", rf"\g<1>127.0.0.1:{port}"),
        ("the upstream's address", r"(server\s+|proxy_pass\s+http://)(127\.0\.0\.1|localhost):\d+", None),
        ("CACHE_DIR", r"/srv/s3-image-server/data/cache", str(cache_dir)),
    ):
        if value is None:
            value = rf"\g<1>127.0.0.1:{upstream}"
        text, changed = re.subn(pattern, value, text)
        if not changed:
            raise ValueError(f"{DEPLOYED.name}: can't find {what}")
    text = re.sub(r"include\s+(?=[\w.]+;)", "include /etc/nginx/", text)
    if not re.search(r"(?m)^\s*http\s*\{", text):
        text = f"events {{ worker_connections 4096; }}\nhttp {{\naccess_log off;\n{text}\n}}\n"
    return _start(text, scratch)


def _start(text: str, scratch: Path) -> Start:
    """Return how to start nginx in the foreground. It writes only to `scratch`."""
    scratch.mkdir(parents=True, exist_ok=True)
    for name in ("pid", "user", "daemon", "worker_processes", "error_log"):
        text = re.sub(rf"(?m)^{name}\s[^;]*;", "", text)
    temporary = "".join(
        f"{kind}_temp_path {scratch}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = re.sub(r"(?m)^\s*http\s*\{", lambda found: f"{found[0]}\n{temporary}", text, count=1)
    # By default, the workers of a root process run as a different user, who can't use these directories.
    user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
    main = f"daemon off;\npid {scratch}/nginx.pid;\nerror_log stderr warn;\nworker_processes {WORKERS};\n"
    configuration = scratch / "nginx.conf"
    configuration.write_text(user + main + text)
    return Start(("nginx", "-e", "stderr", "-p", str(scratch), "-c", str(configuration)))
