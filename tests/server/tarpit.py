"""A server that accepts everything and never answers, to measure how much an attack costs the client.

`python -m tests.server.tarpit PORT` runs it.
"""

import resource
import selectors
import socket
import sys
from contextlib import suppress


def tarpit(port: int) -> None:
    """Accept and read forever."""
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
    """Return the data that has arrived, or b"" if the client has disconnected."""
    with suppress(OSError):
        return client.recv(65_536)
    return b""


def main() -> None:
    """Run the server on the port in the command line."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    tarpit(int(sys.argv[1]))


if __name__ == "__main__":
    main()
