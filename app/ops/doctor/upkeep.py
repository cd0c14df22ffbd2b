"""What else a bucket is configured for: CORS, expiry, encryption, logs."""

from fnmatch import fnmatchcase
from typing import Any

from app.core.object_keys import GENERATED_FOLDER, UPLOAD_FOLDER
from app.ops.doctor.findings import Finding, NotChecked, ask, ok, problem, warning
from app.ops.doctor.patient import Patient, check
from app.ops.doctor.probe import probe_put
from app.ops.doctor.reach import credentials_accepted
from app.services.urls import IMAGES_PATH

_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
"""Classes whose objects can't be read until they are restored."""


@check(credentials_accepted, probe_put)
def cors(patient: Patient) -> Finding:
    """`<img>` needs no CORS; fetch() and canvas do, wherever the URL is S3's."""
    if not _browsers_ask_s3(patient):
        return ok("Browsers are sent to this server, not to S3.")
    answer: Any = ask(patient.clients.s3.get_bucket_cors, Bucket=patient.bucket) or {}
    rules: list[Any] = answer.get("CORSRules", [])
    allowed = {
        origin for rule in rules if "GET" in rule["AllowedMethods"] for origin in rule["AllowedOrigins"]
    }
    wanted = patient.config.cors_origins or ("https://www.example.org",)
    fix = f"flask bucket setup --mode {patient.mode} {' '.join(f'--cors {origin}' for origin in wanted)}"
    if not allowed:
        return warning("Pages can show images, but not fetch() them: there is no CORS rule.", fix)
    shut_out = [origin for origin in patient.config.cors_origins if not _covers(allowed, origin)]
    if shut_out:
        return warning(
            f"CORS_ORIGINS has {', '.join(shut_out)}, which the bucket's CORS rules leave out.", fix
        )
    return ok(f"Pages from {', '.join(sorted(allowed))} may fetch() images.")


def _covers(allowed: set[str], origin: str) -> bool:
    """S3 lets an origin hold one `*`, which stands for any characters."""
    return any(fnmatchcase(origin, pattern) for pattern in allowed)


@check(credentials_accepted)
def lifecycle(patient: Patient) -> Finding:
    """Temporary files should expire, images whose URLs are in use should not."""
    answer: Any = ask(patient.clients.s3.get_bucket_lifecycle_configuration, Bucket=patient.bucket) or {}
    rules = [rule for rule in answer.get("Rules", []) if rule["Status"] == "Enabled"]
    if any(_archives(rule) for rule in rules):
        return problem(
            "A lifecycle rule archives images; archived ones can't be read.",
            "S3 console → the bucket → Management: remove the transition to Glacier",
        )
    expiring = [_prefix(rule) for rule in rules if rule.get("Expiration", {}).keys() & {"Days", "Date"}]
    everything = [prefix for prefix in expiring if _covers_images(prefix)]
    if everything:
        return warning(
            f"Images under '{everything[0]}' are deleted by a lifecycle rule; their URLs may be in use.",
            "Where that is not meant: S3 console → the bucket → Management → Lifecycle rules",
        )
    return ok(f"Expires: {', '.join(expiring)}." if expiring else "No image expires.")


@check(credentials_accepted, probe_put)
def encryption(patient: Patient) -> Finding:
    """At rest; AWS encrypts by default, a key of KMS shuts anonymous visitors out."""
    answer: Any = ask(patient.clients.s3.get_bucket_encryption, Bucket=patient.bucket) or {}
    rules: list[Any] = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    kinds = [rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm", "") for rule in rules]
    if not any(kinds):
        return warning("Images are stored without encryption.", f"flask bucket setup --mode {patient.mode}")
    if patient.is_public and any(kind.startswith("aws:kms") for kind in kinds):
        return problem(
            "Images are encrypted with a KMS key, so visitors without credentials can't read them.",
            "S3 console → the bucket → Properties → Default encryption → SSE-S3",
        )
    return ok(f"Images are encrypted at rest ({', '.join(kinds)}).")


@check(credentials_accepted, probe_put)
def access_logs(patient: Patient) -> Finding:
    """Where browsers ask S3 itself, only S3 can tell who did."""
    if not _browsers_ask_s3(patient):
        return ok("Reads pass through this server.")
    answer = ask(patient.clients.s3.get_bucket_logging, Bucket=patient.bucket)
    if answer and "LoggingEnabled" in answer:
        return ok(f"S3 logs accesses to {answer['LoggingEnabled'].get('TargetBucket', 'a bucket')}.")
    return warning(
        "Browsers ask S3 itself, and nobody logs it.",
        "S3 console → the bucket → Properties → Server access logging, and CloudWatch request metrics",
    )


def _browsers_ask_s3(patient: Patient) -> bool:
    """Whether clients are told S3's URLs; raises `NotChecked` where a CDN or proxy stands between."""
    if patient.config.public_base_url:
        raise NotChecked("can't be checked: what stands at PUBLIC_BASE_URL decides")
    return not patient.url_of(patient.probe.key).startswith(IMAGES_PATH)


def _prefix(rule: Any) -> str:
    """The rule's prefix; tags and sizes narrow a rule, so that a rule with them does not cover everything."""
    chosen = rule.get("Filter", {})
    if (
        "And" in chosen
        or "Tag" in chosen
        or "ObjectSizeGreaterThan" in chosen
        or "ObjectSizeLessThan" in chosen
    ):
        return str(chosen.get("And", {}).get("Prefix") or "tagged objects")
    return str(chosen.get("Prefix", rule.get("Prefix", "")))


def _covers_images(prefix: str) -> bool:
    folders = (f"{UPLOAD_FOLDER}/", f"{GENERATED_FOLDER}/")
    return any(folder.startswith(prefix) or prefix.startswith(folder) for folder in folders)


def _archives(rule: Any) -> bool:
    return any(transition.get("StorageClass") in _ARCHIVES for transition in rule.get("Transitions", []))
