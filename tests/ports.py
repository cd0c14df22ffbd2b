"""Free ports for the servers that tests start."""

import os
import random
import re
import socket

_PORTS_PER_WORKER = 2000
_BLOCKED_BY_BROWSERS = 10080  # the only such port in the range used here
_WORKER = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
_FIRST = 10_000 + _PORTS_PER_WORKER * (_WORKER % 11)
_ports = random.Random(os.getpid()).sample(range(_FIRST, _FIRST + _PORTS_PER_WORKER), _PORTS_PER_WORKER)


def free_port() -> int:
    """Return a port that nothing listens on and nothing else will use before the server does.

    Port 10080 is left out, because browsers refuse it (https://fetch.spec.whatwg.org/#port-blocking). The
    system assigns ephemeral ports from 32768 (Linux) or 49152 upwards. Below that, each worker of
    pytest-xdist has its own range, and no port is returned twice.
    """
    while True:
        port = _ports.pop()
        if port == _BLOCKED_BY_BROWSERS:
            continue
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
