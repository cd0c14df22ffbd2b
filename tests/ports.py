"""Ports for servers that tests start."""

import os
import random
import re
import socket

_EACH = 2000
_WORKER = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
_FIRST = 10_000 + _EACH * (_WORKER % 11)
_ports = random.Random(os.getpid()).sample(range(_FIRST, _FIRST + _EACH), _EACH)


def free_port() -> int:
    """A port that nobody listens on, and that nobody else takes before the server does.

    To sockets that don't say which, the system gives ports from 32768 (Linux) or 49152 upwards. Below that,
    each process of pytest-xdist has some of its own; none is given out twice.
    """
    while True:
        port = _ports.pop()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
