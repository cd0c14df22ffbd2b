"""A server that takes all connections and all that is sent, and answers nothing: what an attack costs its
client can be seen on it. `python -m tests.server.tarpit PORT`.
"""

import resource
import selectors
import socket
import sys
from contextlib import suppress


def tarpit(port: int) -> None:
    """Never return."""
    with selectors.DefaultSelector() as selector, socket.create_server(("127.0.0.1", port)) as listener:
        listener.listen(2048)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                client = key.fileobj
                assert isinstance(client, socket.socket)
                if client is listener:
                    with suppress(OSError):
                        selector.register(listener.accept()[0], selectors.EVENT_READ)
                elif not _read(client):
                    selector.unregister(client)
                    client.close()


def _read(client: socket.socket) -> bytes:
    """What has come; nothing if the client has gone."""
    with suppress(OSError):
        return client.recv(65_536)
    return b""


def main() -> None:
    """Listen on the port of the command line."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    tarpit(int(sys.argv[1]))


if __name__ == "__main__":
    main()
