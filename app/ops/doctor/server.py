"""The generator, and what its provider says of the model.

How the server itself is set: who may write, who can read its secrets, what it takes.

The cache directory: can it be written, is it on a disk that fits, is there room?
"""

import os
import shutil
import stat
import tempfile
from datetime import UTC, datetime

from app.cache.health import Mount, counts_accesses, mount_of
from app.config.env_file import display_name
from app.config.plugins import find_class
from app.core.addresses import is_loopback
from app.core.errors import AppError, ConfigError, GeneratorError
from app.core.object_keys import generated_key
from app.core.objects import FORMATS
from app.generators.base import BaseGenerator
from app.ops.doctor.findings import Finding, NotChecked, ok, problem, warning
from app.ops.doctor.patient import Check, Patient, check

_SHORT_KEY = 16
_BYTES_PER_PIXEL = 4
_NEW_KEY = "flask keys new"


@check()
def api_keys(patient: Patient) -> Finding:
    """Reachable from outside, or through a proxy, the server needs keys: without any, nobody can write."""
    host, keys, proxies = patient.config.host, patient.config.api_keys, patient.config.trusted_proxies
    if not keys and proxies:
        return problem(
            f"TRUSTED_PROXIES={proxies}: through a proxy nobody may write, as no API_KEYS are set.", _NEW_KEY
        )
    if not keys and not is_loopback(host):
        return problem(f"HOST={host} is reachable from outside, and no API_KEYS are set.", _NEW_KEY)
    if any(key.length is not None and key.length < _SHORT_KEY for key in keys):
        return warning(f"A key in API_KEYS is shorter than {_SHORT_KEY} characters.", _NEW_KEY)
    return ok("Writing needs an API key." if keys else "Only programs on this machine may write.")


@check()
def env_file_mode(patient: Patient) -> Finding:
    """Credentials and keys in the settings file are for the server's user alone."""
    if patient.env_file is None:
        raise NotChecked("does not apply: no settings file is read (.env or ENV_FILE)")
    name = display_name(patient.env_file)
    mode = stat.S_IMODE(patient.env_file.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warning(
            f"Settings are read from {name}, which others can read or change (mode {mode:o}).",
            f"chmod 600 {name}",
        )
    return ok(f"Settings are read from {name}, which only its owner can read.")


@check()
def setting_names(patient: Patient) -> Finding:
    """A setting whose name is mistyped does nothing."""
    if patient.mistyped:
        return warning(" ".join(patient.mistyped), "Correct the names, or remove what nothing reads")
    return ok("No variable looks like a mistyped setting.")


@check()
def upload_limits(patient: Patient) -> Finding:
    """Uploads are decoded before they are stored; one as large as allowed must fit into memory."""
    decoded = patient.config.max_image_pixels * _BYTES_PER_PIXEL
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if decoded > memory // 2:
        return warning(
            f"One image of MAX_IMAGE_PIXELS takes {decoded:,} bytes of the machine's {memory:,}.",
            f"Set MAX_IMAGE_PIXELS={memory // 8 // _BYTES_PER_PIXEL}",
        )
    formats = ", ".join(patient.config.allowed_formats)
    return ok(f"Taken: {formats}, up to {patient.config.max_upload_bytes:,} bytes.")


@check()
def unguessable_keys(patient: Patient) -> Finding:
    """Two images generated in the same second get names that tell nothing of each other."""
    now = datetime.now(UTC)
    if generated_key(now, FORMATS["png"]) == generated_key(now, FORMATS["png"]):
        return problem(
            "Generated images get names that can be guessed.", "Repair the system's random numbers"
        )
    return ok("Names of generated images can't be guessed.")


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


_ACTIVE = "ACTIVE"


@check()
def generator(patient: Patient) -> Finding:
    """One of one's own can be loaded; the others come with the server."""
    name = patient.config.generator
    if ":" not in name:
        return ok(f"GENERATOR={name} comes with the server.")
    try:
        find_class("GENERATOR", name, {}, BaseGenerator)
    except ConfigError as exc:
        return problem(exc.message, "Correct GENERATOR, or install the package that it names")
    return ok(f"GENERATOR={name} can be loaded.")


@check(generator, elsewhere=True)
def generator_model(patient: Patient) -> Finding:
    """The provider knows the model, lets us use it, and goes on having it."""
    try:
        facts = patient.describe_model()
    except GeneratorError as exc:
        told = exc.detail or exc.message
        return problem(f"The provider does not tell of GENERATOR_MODEL: {told}", _fix(patient))
    except AppError as exc:
        return problem(f"GENERATOR_MODEL can't be looked up: {exc.message}", _fix(patient))
    if facts is None:
        return ok(f"GENERATOR={patient.config.generator} depends on no provider.")
    if facts.ends is not None or facts.status != _ACTIVE:
        until = f", and is switched off on {facts.ends:%Y-%m-%d}" if facts.ends else ""
        return warning(f"The model {facts.model} is {facts.status}{until}.", "Choose another GENERATOR_MODEL")
    return ok(f"The provider has the model {facts.model}.")


def _fix(patient: Patient) -> str:
    if patient.config.generator == "bedrock":
        return "Check GENERATOR_MODEL and BEDROCK_REGION; allow what flask bucket iam-policy prints"
    return "Check GENERATOR_MODEL, OPENAI_API_KEY and OPENAI_BASE_URL"


GENERATOR_CHECKS: tuple[Check, ...] = (generator, generator_model)
