"""Objects' facts, read from S3's answers."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any

from app.errors import StoreError
from app.objects import ObjectFacts, content_codings

_MOST_SKEW = timedelta(minutes=15)
"""S3 refuses requests whose clock differs by more (`RequestTimeTooSkewed`): a `Date` further off is wrong."""


def facts_of(key: str, answer: Mapping[str, Any]) -> ObjectFacts:
    """Return the facts in an answer to GetObject or HeadObject.

    Raises `StoreError` if some are missing, or if the answer is only a part.
    """
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    if status != 200 or "ContentRange" in answer:
        raise StoreError(detail=f"an answer {status} of a part of the object, or of none")
    try:
        return ObjectFacts(
            key=key,
            size=answer["ContentLength"],
            content_type=answer.get("ContentType", ""),
            etag=etag_of(answer),
            last_modified=_utc(answer["LastModified"]),
            metadata=MappingProxyType({n.lower(): v for n, v in answer.get("Metadata", {}).items()}),
            content_encoding=content_codings(answer.get("ContentEncoding", "")),
            sha256=_sha256(answer),
        )
    except KeyError as exc:
        raise StoreError(detail=f"an answer without {exc}") from exc


def _sha256(answer: Mapping[str, Any]) -> str:
    """Return the digest of the whole object in hexadecimal; empty if S3 has none, or one of its parts."""
    try:
        digest = base64.b64decode(answer.get("ChecksumSHA256", ""), validate=True)
    except ValueError:
        return ""
    is_whole = answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return digest.hex() if is_whole and len(digest) == hashlib.sha256().digest_size else ""


def listed_facts(found: Mapping[str, Any]) -> ObjectFacts:
    """Return the facts in an entry of a listing. Raises `StoreError` if some are missing."""
    try:
        return ObjectFacts(found["Key"], found["Size"], "", etag_of(found), _utc(found["LastModified"]))
    except KeyError as exc:
        raise StoreError(detail=f"ListObjectsV2: an entry without {exc}") from exc


def etag_of(answer: Mapping[str, Any]) -> str:
    """Return the ETag in quotes, which some servers omit. Raises `StoreError` if there is none."""
    etag = str(answer.get("ETag", ""))
    if not etag.strip('"'):
        raise StoreError(detail=f"an answer with the ETag {etag!r}")
    return etag if '"' in etag else f'"{etag}"'


def put_time(answer: Mapping[str, Any]) -> datetime:
    """Return when a put happened, by the server's clock: PutObject does not answer with LastModified."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        said = parsedate_to_datetime(date).astimezone(UTC)
    except (OverflowError, ValueError):
        return now
    return said if abs(said - now) < _MOST_SKEW else now


def _utc(moment: datetime) -> datetime:
    """Return the time in UTC. Raises `StoreError` if that is outside the calendar."""
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError) as exc:
        raise StoreError(detail=f"an answer of the year {moment.year}") from exc
