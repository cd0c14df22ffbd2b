"""What a worker holds open, from /proc."""

from pathlib import Path


def open_files(pid: int) -> list[str]:
    """Return what each descriptor of the process refers to: a path, `socket:[INODE]` or the like."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:  # closed by now
            continue
    return links


def client_connections(pid: int, port: int) -> int:
    """Return how many connections to `port` the process holds, listeners excluded."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    ours = {f"socket:[{line[9]}]" for line in lines if line[1].endswith(f":{port:04X}") and line[3] != "0A"}
    return len(ours & set(open_files(pid)))
