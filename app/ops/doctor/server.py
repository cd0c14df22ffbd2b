"""Checks of the server's settings, generator and cache directory. They need no bucket."""

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from urllib.parse import urlsplit

from app.config.env_file import display_name
from app.config.plugins import find_class
from app.core.addresses import is_loopback
from app.core.errors import AppError, ConfigError, GeneratorError
from app.core.system import Mount, mount_of, records_access_times
from app.generators.base import BaseGenerator
from app.ops.bucket.errors import BucketError
from app.ops.doctor.context import CheckContext, check
from app.ops.doctor.findings import Finding, NotChecked, ok, problem, warning

_MIN_KEY_LENGTH = 16
_NEW_KEY = "flask keys new"
_BYTES_PER_PIXEL = 4

_ACTIVE = "ACTIVE"
"""The status of a model that its provider does not plan to remove."""

_NETWORK_FILE_SYSTEMS = {
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
_VOLATILE_FILE_SYSTEMS = {
    "tmpfs": "memory",
    "ramfs": "memory",
    "overlay": "the container's own layer",
    "aufs": "the container's own layer",
}


@check()
def api_keys(context: CheckContext) -> Finding:
    """If other machines can reach the server, API keys should be set.

    Without keys, only programs on this machine may write.
    """
    host, keys, proxies = context.config.host, context.config.api_keys, context.config.trusted_proxies
    if not keys and proxies:
        return problem(
            f"TRUSTED_PROXIES={proxies} is set, but without API_KEYS nobody can write through a proxy.",
            _NEW_KEY,
        )
    if not keys and not is_loopback(host):
        return problem(f"HOST={host} is reachable from other machines, but API_KEYS is not set.", _NEW_KEY)
    if any(key.length is not None and key.length < _MIN_KEY_LENGTH for key in keys):
        return warning(f"A key in API_KEYS is shorter than {_MIN_KEY_LENGTH} characters.", _NEW_KEY)
    return ok("Writing requires an API key." if keys else "Only programs on this machine may write.")


@check()
def env_file_mode(context: CheckContext) -> Finding:
    """The settings file contains keys and credentials, so only its owner should be able to read it."""
    if context.env_file is None:
        raise NotChecked("does not apply: no settings file is read (.env or ENV_FILE)")
    name = display_name(context.env_file)
    mode = stat.S_IMODE(context.env_file.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warning(
            f"Settings are read from {name}, which other users can read or change (mode {mode:o}).",
            f"chmod 600 {name}",
        )
    return ok(f"Settings are read from {name}, which only its owner can read.")


@check()
def setting_names(context: CheckContext) -> Finding:
    """The names of settings should not be mistyped, since a mistyped setting has no effect."""
    if context.mistyped:
        return warning(" ".join(context.mistyped), "Correct the names, or remove unused variables")
    return ok("No variable looks like a mistyped setting.")


@check()
def upload_limits(context: CheckContext) -> Finding:
    """Uploads are decoded before they are stored, so the largest allowed image must fit into memory."""
    decoded = context.config.max_image_pixels * _BYTES_PER_PIXEL
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if decoded > memory // 2:
        return warning(
            f"One image with MAX_IMAGE_PIXELS takes {decoded:,} of the machine's {memory:,} bytes of memory.",
            f"Set MAX_IMAGE_PIXELS={memory // 8 // _BYTES_PER_PIXEL}",
        )
    formats = ", ".join(context.config.allowed_formats)
    return ok(f"Accepted formats: {formats}, up to {context.config.max_upload_bytes:,} bytes.")


@check()
def https_urls(context: CheckContext) -> Finding:
    """Images and credentials should not cross the network unencrypted."""
    config = context.config
    endpoint = config.aws_endpoint_url_s3
    endpoint_name = "AWS_ENDPOINT_URL_S3" if endpoint else "the endpoint that boto3 uses"
    if not endpoint and config.store == "s3":
        with suppress(BucketError):  # the check `credentials` reports the error
            endpoint = context.clients.endpoint.url
    urls = {endpoint_name: endpoint, "PUBLIC_BASE_URL": config.public_base_url}
    plain = [name for name, url in urls.items() if _is_unencrypted(url)]
    if plain:
        return warning(
            f"Connections to {' and '.join(plain)} are not encrypted.", "Set URLs that start with https://"
        )
    return ok("All URLs of other machines start with https://.")


def _is_unencrypted(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


@check()
def generator(context: CheckContext) -> Finding:
    """A custom generator must be importable. All other generators are part of the server."""
    name = context.config.generator
    if ":" not in name:
        return ok(f"GENERATOR={name} is part of the server.")
    try:
        find_class("GENERATOR", name, {}, BaseGenerator)
    except ConfigError as exc:
        return problem(exc.message, "Correct GENERATOR, or install the package that it names")
    return ok(f"GENERATOR={name} can be loaded.")


@check(generator, is_remote=True)
def generator_model(context: CheckContext) -> Finding:
    """The provider must offer the model to this account, and should not plan to remove it."""
    if context.config.generator == "bedrock":
        fix = "Check GENERATOR_MODEL and BEDROCK_REGION; allow what flask bucket iam-policy prints"
    else:
        fix = "Check GENERATOR_MODEL, OPENAI_API_KEY and OPENAI_BASE_URL"
    try:
        facts = context.describe_model()
    except GeneratorError as exc:
        return problem(f"The provider does not offer GENERATOR_MODEL: {exc.detail or exc.message}", fix)
    except AppError as exc:
        return problem(f"GENERATOR_MODEL can't be looked up: {exc.message}", fix)
    if facts is None:
        return ok(f"GENERATOR={context.config.generator} does not depend on a provider.")
    if facts.ends is not None or facts.status != _ACTIVE:
        until = f", and will be switched off on {facts.ends:%Y-%m-%d}" if facts.ends else ""
        return warning(
            f"The model {facts.model} is {facts.status}{until}.", "Choose a different GENERATOR_MODEL"
        )
    return ok(f"The provider offers the model {facts.model}.")


@check()
def cache_writable(context: CheckContext) -> Finding:
    """The cache directory must be writable. Otherwise every request reads the image from the store."""
    directory = context.config.cache_dir
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as exc:
        return problem(
            f"{directory} is not writable: {exc.strerror}.",
            "Make the server's user the owner of the directory (chown), or set CACHE_DIR",
        )
    return ok(f"{directory} is writable.")


@check(cache_writable)
def cache_local_disk(context: CheckContext) -> Finding:
    """The cache must be on a local disk: SQLite and file locks are not safe on network file systems."""
    kind = _mount(context).kind
    if kind in _NETWORK_FILE_SYSTEMS or kind.startswith("fuse."):
        return problem(f"The cache is on a network file system ({kind}).", "Set CACHE_DIR to a local disk")
    if kind in _VOLATILE_FILE_SYSTEMS:
        return warning(
            f"The cache is in {_VOLATILE_FILE_SYSTEMS[kind]} ({kind}), so it will be lost.",
            "Set CACHE_DIR to a directory on a disk or, in a container, on a volume",
        )
    return ok(f"The cache is on a local disk ({kind}).")


@check(cache_writable)
def cache_space(context: CheckContext) -> Finding:
    """The disk should have room for CACHE_MAX_BYTES, counting the space that the cache already takes."""
    free = shutil.disk_usage(context.config.cache_dir).free
    room = free + context.cache.totals().taken
    if room < context.config.cache_max_bytes:
        return warning(
            f"The disk has room for a cache of {room:,} bytes, which is less than CACHE_MAX_BYTES.",
            f"Set CACHE_MAX_BYTES={max(room * 9 // 10 // 1024**2, 1)}MiB, or free disk space",
        )
    return ok(f"The disk has room for {context.config.cache_max_bytes:,} bytes.")


@check(cache_writable)
def cache_access_times(context: CheckContext) -> Finding:
    """The file system should update atime, since the cache learns from it which files nginx has served."""
    if records_access_times(context.config.cache_dir):
        return ok("The file system updates access times.")
    return warning(
        "The file system is mounted with noatime, so the cache does not know which images nginx serves.",
        f"Remove noatime from /etc/fstab, then: mount -o remount,relatime {_mount(context).point}",
    )


def _mount(context: CheckContext) -> Mount:
    mount = mount_of(context.config.cache_dir)
    if mount is None:
        raise NotChecked("can't be checked: this system does not list its mounts as Linux does")
    return mount


@check()
def store(context: CheckContext) -> Finding:
    """The finding names the bucket that the next checks examine.

    If the store has no bucket, this check is skipped, and the checks that need a bucket are left out.
    """
    if context.config.store != "s3":
        raise NotChecked(f"does not apply: STORE={context.config.store} has no bucket")
    return ok(f"Images are stored in the bucket {context.bucket}.")
