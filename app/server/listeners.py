"""The listeners of gunicorn. Each worker has its own, or all workers share one.

If each worker has its own listener (SO_REUSEPORT), the kernel distributes connections evenly. In this case,
the arbiter only reserves the address, and each worker opens its listener at that address.

This module also finds out why gunicorn can't listen at an address, so that the log gives the reason in one
line.
"""

import errno
import os
import socket
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from gunicorn import sock as gunicorn_sock
from gunicorn import systemd

Address = tuple[str, int] | str | int
"""An address in gunicorn's representation: host and port, the path of a Unix socket, or a file descriptor."""

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}
"""Maps addresses that stand for all interfaces to an address that a browser on this machine can open."""

# State that must survive a reload. A reload runs gunicorn.conf.py, which can't access the arbiter.
_systemd_listens = False
_bind = ""


def bind_address(host: str, port: int) -> str:
    """Return gunicorn's `bind` for HOST and PORT.

    If systemd opened the sockets, the result stays the same in a reload. If it changed, gunicorn would close
    the sockets of systemd and open its own.
    """
    global _bind
    if not _systemd_listens:
        _bind = _format_address((host, port))
    return _bind


def choose_listeners(server: Any, own: tuple[str, int]) -> None:
    """Decide at the start of `server` how its workers listen. `own` is the address of HOST and PORT.

    The workers share one listener in these cases:

    - The workers can't open the listener themselves, since it is a Unix socket or a socket passed by systemd.
    - The port is 0, so that each worker would get a different one.
    - There is only one worker, or workers are replaced after a number of requests. With a shared listener,
      clients wait while a worker is being replaced. With separate listeners, their connections would be
      refused.

    If the server can't listen, log one line and exit with status 1.
    """
    global _systemd_listens
    cfg = server.cfg
    replaces_server = "GUNICORN_FD" in os.environ  # SIGUSR2
    _close_reserved_sockets()
    _systemd_listens = bool(systemd.listen_fds(unset_environment=False))
    if not replaces_server and not _systemd_listens and (problem := problem_with(cfg.address, own)):
        server.log.critical(problem)
        sys.exit(1)
    if "LISTEN_FDS" in os.environ and not _systemd_listens:
        server.log.warning(
            "LISTEN_FDS is meant for process %s, not for this one, so its sockets are not used. Start "
            "gunicorn directly or with exec.",
            os.environ.get("LISTEN_PID", "(LISTEN_PID is missing)"),
        )
    if not _systemd_listens and "GUNICORN_FD" not in os.environ:
        if _wants_one_each(cfg) and _reserve(server):
            return
        if replaces_server:  # the listeners of the old workers have SO_REUSEPORT, so the port can be shared
            server.LISTENERS = gunicorn_sock.create_sockets(cfg, server.log)
    cfg.set("reuse_port", False)


def update_listeners(server: Any) -> None:
    """Apply new settings to the listeners after a reload.

    Keep the listeners, unless the new settings require a different kind and the system allows it. If the
    address has changed, gunicorn has already opened shared listeners.
    """
    cfg, before = server.cfg, server.LISTENERS
    are_reserved = all(isinstance(listener, _ReservedSocket) for listener in before)
    if not _wants_one_each(cfg) or server.systemd:
        if are_reserved:
            server.LISTENERS = gunicorn_sock.create_sockets(cfg, server.log)
            _close(before)
        cfg.set("reuse_port", False)
    elif not are_reserved:
        if all(map(_can_share_port, before)) and _reserve(server):
            _close(before)
        else:
            cfg.set("reuse_port", False)


def describe_listener(listener: Any) -> str:
    """Return a description of the listener for the log, which is "open URL" or "listening at unix:PATH"."""
    address = listener.sock.getsockname()
    if not isinstance(address, tuple):
        path = os.fsdecode(address).replace("\0", "@")  # ss(8) shows sockets without a file like this
        return f"listening at unix:{path}"
    host = str(_WILDCARDS.get(address[0], address[0]))
    port = address[1]
    return f"open http://{f'[{host}]' if ':' in host else host}:{port}/"


def problem_with(addresses: Sequence[Address], own: Address = "") -> str:
    """Return why gunicorn can't listen on these addresses and what to do, or "" if it can.

    `own` is the address of HOST and PORT.
    """
    for one, other in combinations(addresses, 2):
        if _are_same(one, other):
            pair = f"{_format_address(one)} and {_format_address(other)}"
            return f"An address is given twice with --bind: {pair}. Remove one of them."
    if {isinstance(address, int) for address in addresses} == {True, False}:
        return (
            "gunicorn can't combine sockets passed as fd:// with other addresses. Pass all as fd://, or none."
        )
    for address in addresses:
        if isinstance(address, str):
            problem = _problem_with_path(address)
        elif isinstance(address, tuple):
            problem = _problem_with_port(address, is_own=address == own)
        else:
            problem = ""
        if problem:
            return problem
    return ""


def problem_with_move(server: Any, addresses: Sequence[Address]) -> str:
    """Return why the running `server` can't move to these addresses in a reload, or "" if it can.

    Only HOST and PORT can change, since a reload does not change gunicorn's command line.
    """
    added = [address for address in addresses if address not in server.cfg.address]
    ports = {address[1] for address in server.cfg.address if isinstance(address, tuple)}
    joining = [address for address in added if isinstance(address, tuple) and address[1] in ports]
    if joining and not all(map(_can_share_port, server.LISTENERS)):
        return (
            "HOST can't be changed on the same port while the workers share a listener. Restart the server."
        )
    for address in joining:
        if problem := _problem_with_port(address, is_own=True, joins=True):
            return problem
    elsewhere = [address for address in added if address not in joining]
    return problem_with(elsewhere, *elsewhere[:1])


class _ReservedSocket:
    """Reserves a TCP address at which each worker opens its own listener (SO_REUSEPORT).

    This socket does not listen, so it gets no connections. gunicorn logs its address in "Listening at".
    """

    conf: Any
    cfg_addr: tuple[str, int]

    def set_options(self, sock: socket.socket, bound: bool = False) -> socket.socket:
        """Bind the new socket. Raise `OSError` if this fails, or if SO_REUSEPORT is not supported."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(self.cfg_addr)
        sock.set_inheritable(True)  # after SIGUSR2, the new server notices that this socket does not listen
        return sock


class _ReservedIPv4Socket(_ReservedSocket, gunicorn_sock.TCPSocket):  # type: ignore[misc]
    pass


class _ReservedIPv6Socket(_ReservedSocket, gunicorn_sock.TCP6Socket):  # type: ignore[misc]
    pass


def _wants_one_each(cfg: Any) -> bool:
    """Return whether each worker should have its own listener."""
    return (
        hasattr(socket, "SO_REUSEPORT")
        and cfg.reuse_port
        and cfg.workers > 1
        and not cfg.max_requests
        and all(isinstance(address, tuple) and address[1] for address in cfg.address)
    )


def _reserve(server: Any) -> bool:
    """Reserve the addresses for the listeners of the workers. Return whether the system allows this."""
    try:
        server.LISTENERS = [
            (_ReservedIPv6Socket if ":" in address[0] else _ReservedIPv4Socket)(
                address, server.cfg, server.log
            )
            for address in server.cfg.address
        ]
    except OSError:  # some systems define SO_REUSEPORT without supporting it
        return False
    return True


def _close(listeners: Sequence[Any]) -> None:
    for listener in listeners:
        listener.close()


def _can_share_port(listener: Any) -> bool:
    return bool(listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


def _close_reserved_sockets() -> None:
    """Close the reserved sockets of the server that this one replaces (SIGUSR2).

    Keep that server's listeners.
    """
    kept = []
    for number in filter(None, os.environ.get("GUNICORN_FD", "").split(",")):
        inherited = socket.socket(fileno=int(number))
        if inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            kept.append(str(inherited.detach()))
        else:
            inherited.close()
    os.environ.pop("GUNICORN_FD", None)
    if kept:
        os.environ["GUNICORN_FD"] = ",".join(kept)


def _are_same(one: Address, other: Address) -> bool:
    """Return whether listeners at these addresses would conflict, however the addresses are written."""
    if isinstance(one, str) and isinstance(other, str):
        return os.path.realpath(one) == os.path.realpath(other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return one == other or (one[1] == other[1] != 0 and _overlap(one[0], other[0]))
    return one == other


def _overlap(one: str, other: str) -> bool:
    """Return whether two listeners on these hosts would conflict if they used the same port.

    Only the system knows the addresses of host names, and whether `::` includes IPv4.
    """
    try:
        with socket.socket(_family(one)) as first, socket.socket(_family(other)) as second:
            first.bind((one, 0))
            second.bind((other, first.getsockname()[1]))
    except OSError as exc:  # any other error concerns only one of the two hosts
        return exc.errno == errno.EADDRINUSE
    return False


def _family(host: str) -> socket.AddressFamily:
    """Return the address family that gunicorn uses for this host."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _format_address(address: Address) -> str:
    """Return the address in the format of `--bind`."""
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    return f"unix:{address}" if isinstance(address, str) else f"fd://{address}"


def _problem_with_path(path: str) -> str:
    """Return why gunicorn can't listen at the path, or "" if it can.

    Without this check, gunicorn would replace the socket of a running server.
    """
    try:
        if Path(path).exists() and not Path(path).is_socket():
            return f"Can't listen on unix:{path}: the file there is not a socket. Choose another path."
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(path)
    except FileNotFoundError:
        parent = Path(path).parent
        return "" if parent.is_dir() else f"Can't listen on unix:{path}: {parent} is not a directory."
    except ConnectionRefusedError:  # a killed server left the socket behind, and gunicorn replaces it
        return ""
    except TimeoutError:
        pass
    except OSError as exc:
        return f"Can't listen on unix:{path}: {exc.strerror or exc}"
    return f"unix:{path} is in use by another program. Stop that program, or choose another path."


def _problem_with_port(address: tuple[str, int], *, is_own: bool, joins: bool = False) -> str:
    """Return why gunicorn can't listen at the address, or "" if it can.

    `is_own` says whether `address` is that of HOST and PORT, and `joins` says whether this server already
    uses the port.
    """
    host, port = address
    try:
        with socket.socket(_family(host)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if joins:  # this server's listeners share the port, but those of other programs don't
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(address)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            what = f"HOST={host} PORT={port}" if is_own else f"{host}:{port}"
            return f"Can't listen on {what}: {exc.strerror or exc}"
        choice = f"another port: PORT={port + 1} make run" if is_own else "another --bind"
        return f"Port {port} on {host} is in use by another program. Stop that program, or choose {choice}"
    return ""
