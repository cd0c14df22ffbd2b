"""How the server itself is set: who may write, who can read its secrets, what it takes."""

import os
import stat
from datetime import UTC, datetime

from app.bucket.doctor.check import check
from app.bucket.doctor.finding import Finding, NotChecked, ok, problem, warning
from app.bucket.doctor.patient import Patient
from app.formats import FORMATS
from app.keys import generated
from app.loopback import is_loopback
from app.settings_file import name_of

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
    name = name_of(patient.env_file)
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
    if generated(now, FORMATS["png"]) == generated(now, FORMATS["png"]):
        return problem(
            "Generated images get names that can be guessed.", "Repair the system's random numbers"
        )
    return ok("Names of generated images can't be guessed.")
