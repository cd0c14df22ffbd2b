"""How a worker takes connections: into its loop, with room for a new one always, and until it is to stop."""

import errno
import resource
import selectors
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from app.worker.connection import Connection


class ListeningWorker(ThreadWorker):  # type: ignore[misc]
    """gthread; where `reads_heads` is set, a connection waits in the loop until a whole head has come."""

    reads_heads = False
    sockets: list[Any]

    def init_process(self) -> None:
        """Allow as many open files as the system does: a hit on its way takes two."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        super().init_process()

    def accept(self, listener: Any) -> None:
        """Take a connection."""
        if self.reads_heads:
            self._accept(listener)
        else:
            super().accept(listener)

    def set_accept_enabled(self, enabled: bool) -> None:
        """As gthread. A worker that stops takes who waits already, and closes its listeners at once.

        With one listener for each worker (SO_REUSEPORT) the kernel would go on giving it connections, for as
        long as its last download takes, though others could answer them.
        """
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        for listener in self.sockets:
            listener.setblocking(False)
            for _ in range(self.worker_connections if self.reads_heads else 0):
                if not self._accept(listener):
                    break
            listener.close()
        self.sockets = []

    def _accept(self, listener: Any) -> bool:
        try:
            sock, client = listener.accept()
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE) and self.alive:
                self.set_accept_enabled(False)  # until the loop's next turn: connections will end meanwhile
            elif exc.errno not in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ECONNABORTED):
                raise
            return False
        self._welcome(Connection(self.cfg, sock, client, listener.getsockname()))
        return True

    def _welcome(self, conn: Connection) -> None:
        """Where there are too many connections, the one that has asked for nothing the longest goes."""
        self.nr_conns += 1
        conn.set_timeout()
        self.keepalived_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))
        if self.nr_conns >= self.worker_connections:
            self._drop(self.keepalived_conns[0])

    def _forget(self, conn: Connection) -> None:
        self.poller.unregister(conn.sock)
        (self.pending_conns if conn in self.pending_conns else self.keepalived_conns).remove(conn)

    def _drop(self, conn: Connection) -> None:
        self._forget(conn)
        conn.close()
        self._count_out()

    def _count_out(self) -> None:
        self.nr_conns -= 1
