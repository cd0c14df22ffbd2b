"""Where gunicorn listens: one listener for each worker or one for all, and what keeps it from listening."""

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
"""As gunicorn has it: host and port, the path of a Unix socket, or the descriptor of an open socket."""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}
"""Addresses that stand for all, and one of them that can be opened on this machine."""


class _Reserved:
    """Keeps a TCP address while each worker listens there itself (SO_REUSEPORT).

    It does not listen, so the kernel gives it no connections. gunicorn names it in "Listening at".
    """

    conf: Any
    cfg_addr: tuple[str, int]

    def set_options(self, sock: socket.socket, bound: bool = False) -> socket.socket:
        """Bind the new socket. Raises `OSError`, also if the system has no SO_REUSEPORT."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(self.cfg_addr)
        sock.set_inheritable(True)  # so that after SIGUSR2 the new server can tell that it does not listen
        return sock


class _ReservedIPv4(_Reserved, gunicorn_sock.TCPSocket):  # type: ignore[misc]
    pass


class _ReservedIPv6(_Reserved, gunicorn_sock.TCP6Socket):  # type: ignore[misc]
    pass


_is_systemds = False
_bind = ""


def bind_address(host: str, port: int) -> str:
    """Return gunicorn's `bind` for HOST and PORT; in a reload that of the start if systemd listens.

    If the address were another after a reload, gunicorn would close systemd's sockets and open its own.
    """
    global _bind
    if not _is_systemds:
        _bind = _shown((host, port))
    return _bind


def choose_listeners(server: Any, own: tuple[str, int]) -> None:
    """Decide at the start of `server` how its workers listen.

    With a listener for each worker none of them holds most of the connections. All share one if they can't
    open it themselves (Unix sockets, systemd's sockets), if each would get another port, or if newcomers
    would be refused: they wait at the shared one while the only worker is replaced, or all one by one.

    If it can't listen, ends the process with one line. `own` is the address that HOST and PORT give.
    """
    global _is_systemds
    cfg = server.cfg
    takes_over = "GUNICORN_FD" in os.environ
    _drop_reserved()
    _is_systemds = bool(systemd.listen_fds(unset_environment=False))
    if not takes_over and not _is_systemds and (problem := problem_with(cfg.address, own)):
        server.log.critical(problem)
        sys.exit(1)
    if "LISTEN_FDS" in os.environ and not _is_systemds:
        server.log.warning(
            "LISTEN_FDS is meant for process %s, not for this one, so its sockets are not used. Start "
            "gunicorn directly, or with exec.",
            os.environ.get("LISTEN_PID", "(LISTEN_PID is missing)"),
        )
    if not _is_systemds and "GUNICORN_FD" not in os.environ:
        if _one_for_each(cfg) and _reserve(server):
            return
        if takes_over:  # the old workers' listeners let others join them
            server.LISTENERS = gunicorn_sock.create_sockets(cfg, server.log)
    cfg.set("reuse_port", False)


def rechoose_listeners(server: Any) -> None:
    """After a reload, keep the listeners there are, unless the new settings want and allow another choice.

    If the address has changed, gunicorn has opened listeners for all workers already.
    """
    cfg, before = server.cfg, server.LISTENERS
    are_reserved = all(isinstance(listener, _Reserved) for listener in before)
    if not _one_for_each(cfg) or server.systemd:
        if are_reserved:
            server.LISTENERS = gunicorn_sock.create_sockets(cfg, server.log)
            _close(before)
        cfg.set("reuse_port", False)
    elif not are_reserved:
        if all(map(_lets_others_join, before)) and _reserve(server):
            _close(before)
        else:
            cfg.set("reuse_port", False)


def problem_with(addresses: Sequence[Address], own: Address = "") -> str:
    """Return why gunicorn can't listen on these addresses and what to do, or "".

    `own` is the one that comes from HOST and PORT.
    """
    for one, other in combinations(addresses, 2):
        if _are_the_same(one, other):
            return f"An address is given twice with --bind: {_shown(one)} and {_shown(other)}. Leave one out."
    if {isinstance(address, int) for address in addresses} == {True, False}:
        return "gunicorn listens on sockets passed as fd:// alone. Pass all of them so, or none."
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
    """Return why the running `server` can't go to these addresses, or "".

    It can only be told to by HOST and PORT: arguments are those that it was started with.
    """
    added = [address for address in addresses if address not in server.cfg.address]
    ports = {address[1] for address in server.cfg.address if isinstance(address, tuple)}
    joining = [address for address in added if isinstance(address, tuple) and address[1] in ports]
    if joining and not all(map(_lets_others_join, server.LISTENERS)):
        return "HOST can't be changed while one listener is shared on the same port. Restart the server."
    for address in joining:
        if problem := _problem_with_port(address, is_own=True, joins=True):
            return problem
    elsewhere = [address for address in added if address not in joining]
    return problem_with(elsewhere, *elsewhere[:1])


def where(listener: Any) -> str:
    """Return what to tell people of the listener: a URL to open, or the path of a Unix socket."""
    address = listener.sock.getsockname()
    if not isinstance(address, tuple):
        path = os.fsdecode(address).replace("\0", "@")  # as ss(8) shows sockets without a file
        return f"listening at unix:{path}"
    host = str(_EVERYWHERE.get(address[0], address[0]))
    port = address[1]
    return f"open http://{f'[{host}]' if ':' in host else host}:{port}/"


def _one_for_each(cfg: Any) -> bool:
    return (
        hasattr(socket, "SO_REUSEPORT")
        and cfg.reuse_port
        and cfg.workers > 1
        and not cfg.max_requests
        and all(isinstance(address, tuple) and address[1] for address in cfg.address)
    )


def _reserve(server: Any) -> bool:
    """Reserve the addresses for workers that listen themselves; return whether the system lets them."""
    try:
        server.LISTENERS = [
            (_ReservedIPv6 if ":" in address[0] else _ReservedIPv4)(address, server.cfg, server.log)
            for address in server.cfg.address
        ]
    except OSError:  # a system that knows the option by name only
        return False
    return True


def _close(listeners: Sequence[Any]) -> None:
    for listener in listeners:
        listener.close()


def _lets_others_join(listener: Any) -> bool:
    return bool(listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


def _drop_reserved() -> None:
    """Close what the server that this one replaces (SIGUSR2) has only reserved."""
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


def _are_the_same(one: Address, other: Address) -> bool:
    """Return whether a connection to one of them could as well be one to the other, however it is written."""
    if isinstance(one, str) and isinstance(other, str):
        return os.path.realpath(one) == os.path.realpath(other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return one == other or (one[1] == other[1] != 0 and _overlap(one[0], other[0]))
    return one == other


def _overlap(one: str, other: str) -> bool:
    """Return whether the system keeps two programs from listening on these hosts with the same port.

    It knows names, addresses that stand for all, and whether `::` stands for those of IPv4.
    """
    try:
        with socket.socket(_family(one)) as first, socket.socket(_family(other)) as second:
            first.bind((one, 0))
            second.bind((other, first.getsockname()[1]))
    except OSError as exc:  # any other problem is one of a single address
        return exc.errno == errno.EADDRINUSE
    return False


def _family(host: str) -> socket.AddressFamily:
    """Return the family in which gunicorn listens on this host."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _shown(address: Address) -> str:
    """Return the address as `--bind` takes it."""
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    return f"unix:{address}" if isinstance(address, str) else f"fd://{address}"


def _problem_with_path(path: str) -> str:
    """gunicorn itself would take the path away from a server that listens there."""
    try:
        if Path(path).exists() and not Path(path).is_socket():
            return f"Can't listen on unix:{path}: there is a file that is no socket. Choose another path."
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(path)
    except FileNotFoundError:
        parent = Path(path).parent
        return "" if parent.is_dir() else f"Can't listen on unix:{path}: {parent} is no directory."
    except ConnectionRefusedError:  # left over from a server that was killed: gunicorn replaces it
        return ""
    except TimeoutError:
        pass
    except OSError as exc:
        return f"Can't listen on unix:{path}: {exc.strerror or exc}"
    return f"unix:{path} is in use by another program. Stop that one, or choose another path."


def _problem_with_port(address: tuple[str, int], *, is_own: bool, joins: bool = False) -> str:
    host, port = address
    try:
        with socket.socket(_family(host)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if joins:  # this server's own listeners at the port let it, no other program's do
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(address)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            what = f"HOST={host} PORT={port}" if is_own else f"{host}:{port}"
            return f"Can't listen on {what}: {exc.strerror or exc}"
        other = f"another port: PORT={port + 1} make run" if is_own else "another --bind"
        return f"Port {port} on {host} is in use by another program. Stop that one, or choose {other}"
    return ""
