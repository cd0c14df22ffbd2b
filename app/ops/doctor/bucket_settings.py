"""Checks of bucket settings that don't decide who has access: CORS, lifecycle, encryption, access logs."""

from fnmatch import fnmatchcase
from typing import Any

from app.core.object_keys import GENERATED_FOLDER, UPLOAD_FOLDER
from app.ops.doctor.connection import credentials_accepted
from app.ops.doctor.context import CheckContext, check
from app.ops.doctor.findings import Finding, NotChecked, ok, problem, query, warning
from app.ops.doctor.probe import probe_put
from app.services.urls import IMAGES_PATH

_ARCHIVE_CLASSES = {"GLACIER", "DEEP_ARCHIVE"}
"""Storage classes whose objects can't be read until they are restored."""


@check(credentials_accepted, probe_put)
def cors(context: CheckContext) -> Finding:
    """If clients get S3 URLs, a CORS rule should allow `fetch()` and canvas. `<img>` works without it."""
    if not _browsers_read_s3(context):
        return ok("Browsers read images from this server, not from S3.")
    response: Any = query(context.clients.s3.get_bucket_cors, Bucket=context.bucket) or {}
    rules: list[Any] = response.get("CORSRules", [])
    allowed = {
        origin for rule in rules if "GET" in rule["AllowedMethods"] for origin in rule["AllowedOrigins"]
    }
    wanted = context.config.cors_origins or ("https://www.example.org",)
    fix = f"flask bucket setup --mode {context.mode} {' '.join(f'--cors {origin}' for origin in wanted)}"
    if not allowed:
        return warning("Pages can show images but can't fetch() them, because there is no CORS rule.", fix)
    # A pattern may contain one `*`, which matches any number of characters.
    missing = [
        origin
        for origin in context.config.cors_origins
        if not any(fnmatchcase(origin, pattern) for pattern in allowed)
    ]
    if missing:
        return warning(
            f"{', '.join(missing)} is in CORS_ORIGINS, but not in the CORS rules of the bucket.", fix
        )
    return ok(f"Pages from {', '.join(sorted(allowed))} may fetch() images.")


@check(credentials_accepted)
def lifecycle(context: CheckContext) -> Finding:
    """Lifecycle rules should neither delete nor archive images whose URLs may be in use."""
    response: Any = query(context.clients.s3.get_bucket_lifecycle_configuration, Bucket=context.bucket) or {}
    rules = [rule for rule in response.get("Rules", []) if rule["Status"] == "Enabled"]
    classes = {move.get("StorageClass") for rule in rules for move in rule.get("Transitions", [])}
    if classes & _ARCHIVE_CLASSES:
        return problem(
            "A lifecycle rule archives images. Archived images can't be read.",
            "S3 console → the bucket → Management: remove the transition to Glacier",
        )
    expiring = [_prefix(rule) for rule in rules if rule.get("Expiration", {}).keys() & {"Days", "Date"}]
    images = [prefix for prefix in expiring if _covers_images(prefix)]
    if images:
        return warning(
            f"A lifecycle rule deletes images under '{images[0]}', whose URLs may be in use.",
            "If that is not intended: S3 console → the bucket → Management → Lifecycle rules",
        )
    if expiring:
        return ok(f"Lifecycle rules delete only other objects: {', '.join(expiring)}.")
    return ok("No lifecycle rule deletes images.")


def _prefix(rule: Any) -> str:
    """Return the prefix of the keys that a lifecycle rule covers, or "" if it covers all keys.

    A rule that has no prefix, but is limited to tags or sizes, does not cover all keys. For such a rule,
    return a description in place of the prefix.
    """
    filters = rule.get("Filter", {})
    if filters.keys() & {"And", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan"}:
        return str(filters.get("And", {}).get("Prefix") or "tagged objects")
    return str(filters.get("Prefix", rule.get("Prefix", "")))


def _covers_images(prefix: str) -> bool:
    folders = (f"{UPLOAD_FOLDER}/", f"{GENERATED_FOLDER}/")
    return any(folder.startswith(prefix) or prefix.startswith(folder) for folder in folders)


@check(credentials_accepted, probe_put)
def encryption(context: CheckContext) -> Finding:
    """Images should be encrypted at rest.

    In public mode, they must not be encrypted with a KMS key, because anonymous reads would fail.
    """
    response: Any = query(context.clients.s3.get_bucket_encryption, Bucket=context.bucket) or {}
    rules: list[Any] = response.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    kinds = [rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm", "") for rule in rules]
    if not any(kinds):
        return warning("Images are stored without encryption.", f"flask bucket setup --mode {context.mode}")
    if context.is_public and any(kind.startswith("aws:kms") for kind in kinds):
        return problem(
            "Images are encrypted with a KMS key, so browsers without credentials can't read them.",
            "S3 console → the bucket → Properties → Default encryption → SSE-S3",
        )
    return ok(f"Images are encrypted at rest ({', '.join(kinds)}).")


@check(credentials_accepted, probe_put)
def access_logs(context: CheckContext) -> Finding:
    """If browsers read images from S3, S3 should log the requests, since this server can't."""
    if not _browsers_read_s3(context):
        return ok("Browsers read images from this server, which logs the requests.")
    response = query(context.clients.s3.get_bucket_logging, Bucket=context.bucket)
    if response and "LoggingEnabled" in response:
        return ok(f"S3 logs requests to {response['LoggingEnabled'].get('TargetBucket', 'a bucket')}.")
    return warning(
        "Browsers read images from S3, but S3 does not log the requests.",
        "S3 console → the bucket → Properties → Server access logging, and CloudWatch request metrics",
    )


def _browsers_read_s3(context: CheckContext) -> bool:
    """Return whether clients get S3 URLs. Raises `NotChecked` if `PUBLIC_BASE_URL` is set."""
    if context.config.public_base_url:
        raise NotChecked("can't be checked: it depends on the server at PUBLIC_BASE_URL")
    return not context.url_of(context.probe.key).startswith(IMAGES_PATH)
