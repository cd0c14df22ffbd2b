"""The open files of a worker, from /proc."""

from pathlib import Path


def open_files(pid: int) -> list[str]:
    """Return what each descriptor of the process refers to, such as a path or `socket:[INODE]`."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:  # has been closed
            continue
    return links


def client_connections(pid: int, port: int) -> int:
    """Return the number of connections to `port` that the process holds, excluding listeners."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    ours = {f"socket:[{line[9]}]" for line in lines if line[1].endswith(f":{port:04X}") and line[3] != "0A"}
    return len(ours & set(open_files(pid)))
