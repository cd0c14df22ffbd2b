"""The cache directory: can it be written, is it on a disk that fits, is there room?"""

import shutil
import tempfile

from app.bucket.doctor.check import check
from app.bucket.doctor.finding import Finding, NotChecked, ok, problem, warning
from app.bucket.doctor.patient import Patient
from app.cache.mount import Mount, counts_accesses, mount_of

_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "beegfs",
    "gpfs",
}
_PASSING = {
    "tmpfs": "memory",
    "ramfs": "memory",
    "overlay": "the container's own layer",
    "aufs": "the container's own layer",
}


@check()
def cache_writable(patient: Patient) -> Finding:
    """A file can be made there; without that each image is read from the store each time."""
    directory = patient.config.cache_dir
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as exc:
        return problem(
            f"{directory} can't be written: {exc.strerror}.",
            "chown it to the server's user, or set CACHE_DIR",
        )
    return ok(f"{directory} can be written.")


@check(cache_writable)
def cache_local_disk(patient: Patient) -> Finding:
    """SQLite and file locks are not safe on network file systems."""
    kind = _mount(patient).kind
    if kind in _NETWORK or kind.startswith("fuse."):
        return problem(f"The cache lies on a network file system ({kind}).", "Set CACHE_DIR to a local disk")
    if kind in _PASSING:
        return warning(
            f"The cache lies in {_PASSING[kind]} ({kind}), and is lost with it.",
            "Set CACHE_DIR to a disk; in a container, to a volume",
        )
    return ok(f"The cache lies on a local disk ({kind}).")


@check(cache_writable)
def cache_space(patient: Patient) -> Finding:
    """What the cache has and what the disk has left come to CACHE_MAX_BYTES."""
    free = shutil.disk_usage(patient.config.cache_dir).free
    room = free + patient.cache.totals().taken
    if room < patient.config.cache_max_bytes:
        return warning(
            f"The disk has room for {room:,} bytes of cache, fewer than CACHE_MAX_BYTES.",
            f"Set CACHE_MAX_BYTES={max(room * 9 // 10 // 1024**2, 1)}MiB, or make room",
        )
    return ok(f"There is room for {patient.config.cache_max_bytes:,} bytes.")


@check(cache_writable)
def cache_access_times(patient: Patient) -> Finding:
    """A front server's hits count as use through the access times of the files."""
    if counts_accesses(patient.config.cache_dir):
        return ok("The disk keeps access times.")
    return warning(
        "The disk is mounted noatime: hits that a front server serves don't count as use.",
        f"Take noatime out of /etc/fstab, then: mount -o remount,relatime {_mount(patient).point}",
    )


def _mount(patient: Patient) -> Mount:
    mount = mount_of(patient.config.cache_dir)
    if mount is None:
        raise NotChecked("can't be checked: this system does not tell its mounts as Linux does")
    return mount
