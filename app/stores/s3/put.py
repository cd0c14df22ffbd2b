"""PutObject, limited to the features that the bucket and the server support.

Buckets may have ACLs disabled. Compatible servers may lack ACLs or conditional puts, or may accept less
metadata than S3. A put that fails for such a reason is repeated without the feature, and later puts don't use
the feature either.
"""

import base64
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from app.core.errors import StoreError
from app.core.object_metadata import shorten_values
from app.core.objects import ObjectFacts
from app.stores.s3.client import RETRY_WINDOW_SECONDS, BucketClient, etag_of, facts_of
from app.stores.s3.errors import MEANINGS, code_of, status_of

_MAX_ATTEMPTS = 8
"""Maximum number of attempts with the same metadata. This is enough to try every combination of options, and
to repeat the put after some conflicts."""

_SHORT_VALUE_BYTES = 256
"""Maximum length of a metadata value in bytes, for servers that reject longer values. This is the default
limit of OpenStack Swift."""

_SHORT_VALUES_SECONDS = 600.0
"""For how many seconds to send only short values after the server rejected longer ones. The rejection may
have been caused by an outage, so this is not permanent."""

_METADATA_STATUSES = (400, 413, 431, 500, 501)
"""Statuses of responses to metadata that exceeds a server's limit: 500 from Swift, 400 from AWS, and 413 or
431 from proxies."""

_METADATA_CODES = {
    "MetadataTooLarge",
    "RequestHeaderSectionTooLarge",
    "InvalidRequest",
    "InvalidArgument",
}
"""Error codes that metadata may cause. All other codes in `MEANINGS` have different causes."""

_MAX_CLOCK_SKEW = timedelta(minutes=15)
"""Maximum difference between this machine's clock and the `Date` of a response. S3 rejects requests with a
greater clock skew (`RequestTimeTooSkewed`), so a `Date` with a greater difference is wrong."""

_log = logging.getLogger(__name__)


class Upload(NamedTuple):
    """The result of a put.

    `facts` describes the stored object. It is None if nothing was stored, because an object exists that must
    not be overwritten. If `in_doubt` is True, an earlier attempt at this put may have stored that object, but
    its response was lost.
    """

    facts: ObjectFacts | None
    in_doubt: bool


class _Options(NamedTuple):
    """The options of a put: whether to send the ACL `public-read`, and whether to send `If-None-Match: *`."""

    acl: bool
    conditional: bool


class Uploader:
    """Puts objects with the options that were found to work.

    `acl` is `public-read`, `none`, or `auto`, which means public-read as long as the bucket accepts it.
    `encryption` contains the encryption parameters of each put. `exists` tells whether an object exists. It
    is called before a put that must not overwrite, if the server does not support conditional puts.
    """

    def __init__(
        self, client: BucketClient, *, acl: str, encryption: dict[str, str], exists: Callable[[str], bool]
    ) -> None:
        self._client = client
        self._acl_is_optional = acl == "auto"
        self._sends_acl = acl != "none"
        self._encryption = encryption
        self._exists = exists
        self._has_conditions: bool | None = None
        """Whether the server obeys `If-None-Match`. AWS does. For a compatible server, this is None until a
        put with `overwrite=False` has shown it."""
        self._short_values_until = 0.0

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str,
        cache_control: str,
        metadata: Mapping[str, str],
        overwrite: bool,
    ) -> Upload:
        """Put the object. If S3 rejects its metadata, shorten the values. If that fails too, omit the
        metadata.

        Raises botocore's errors, and `StoreError` for a response that can't come from S3.
        """
        request = {
            "Key": key,
            "Body": data,
            "ContentType": content_type,
            **({"CacheControl": cache_control} if cache_control else {}),
        }
        started = time.monotonic()
        refused: ClientError | None = None
        in_doubt = False
        for sent in self._metadata_to_try(metadata):
            try:
                response, may_be_ours = self._put_once(
                    {**request, "Metadata": dict(sent)} if sent else request, overwrite
                )
            except ClientError as exc:
                refused = refused or exc
                is_late = time.monotonic() - started > RETRY_WINDOW_SECONDS
                if is_late or not sent or not _may_be_about_metadata(exc):
                    raise refused from None
                in_doubt = in_doubt or _may_have_stored(exc)
                continue
            if response is None:
                return Upload(None, in_doubt or may_be_ours)
            if refused:
                self._note_simpler_metadata(sent, refused)
            etag = self._etag_of_put(key, data, response)
            return Upload(ObjectFacts(key, len(data), content_type, etag, _date_of(response), sent), in_doubt)
        raise AssertionError

    def _metadata_to_try(self, metadata: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
        short = shorten_values(metadata, _SHORT_VALUE_BYTES) if metadata else metadata
        if short == metadata or time.monotonic() >= self._short_values_until:
            yield metadata
        if short != metadata:
            yield short
        if metadata:
            yield {}

    def _note_simpler_metadata(self, stored: Mapping[str, str], refused: ClientError) -> None:
        if stored:
            self._short_values_until = time.monotonic() + _SHORT_VALUES_SECONDS
        _log.warning(
            "S3 rejected an image with its metadata (%s %s). The image was stored with %s. If the server's "
            "limit for metadata is below S3's 2 KB, raise it, or set KEEP_PROMPTS=false.",
            status_of(refused),
            code_of(refused),
            f"values of at most {_SHORT_VALUE_BYTES} bytes" if stored else "no metadata",
        )

    def _put_once(self, request: dict[str, Any], overwrite: bool) -> tuple[dict[str, Any] | None, bool]:
        """Put the object with the metadata in `request`. Try different options until the put succeeds.

        Return a pair. The first item is S3's response, or None if an object exists that must not be
        overwritten. The second item says whether an earlier attempt at this put may have stored that object.
        """
        if self._has_conditions is None and self._client.is_aws:
            self._has_conditions = True
        if not (overwrite or self._has_conditions) and self._exists(request["Key"]):
            return None, False
        options = _Options(self._sends_acl, not overwrite and self._has_conditions is not False)
        in_doubt = False
        for attempts_left in reversed(range(_MAX_ATTEMPTS)):
            try:
                response = self._send(request, options)
            except ClientError as exc:
                in_doubt = in_doubt or _may_have_stored(exc)
                if code_of(exc) == "PreconditionFailed" and options.conditional:
                    return None, in_doubt
                following = self._options_after(code_of(exc), options, overwrite)
                if following is None or not attempts_left:
                    raise
                options = following
            else:
                self._learn(request, options, overwrite)
                return response, in_doubt
        raise AssertionError

    def _send(self, request: dict[str, Any], options: _Options) -> dict[str, Any]:
        """Send PutObject with a checksum that the server verifies. Every compatible server supports MD5."""
        data = request["Body"]
        if self._client.is_aws:
            checksum = {"ChecksumSHA256": _base64(hashlib.sha256(data).digest())}
        else:
            checksum = {"ContentMD5": _base64(hashlib.md5(data, usedforsecurity=False).digest())}
        return self._client.call(
            "put_object",
            **request,
            **checksum,
            **self._encryption,
            **({"ACL": "public-read"} if options.acl else {}),
            **({"IfNoneMatch": "*"} if options.conditional else {}),
        )

    def _options_after(self, code: str, options: _Options, overwrite: bool) -> _Options | None:
        """Return the options to try after this error, or None if no other options would help.

        A 403 may mean that `s3:PutObjectAcl` is missing or that Block Public Access is on. But it may also
        mean that `s3:PutObject` is missing. The ACL was the reason only if a put without it succeeds.
        """
        if code == "ConditionalRequestConflict":
            return options
        if code in ("AccessControlListNotSupported", "AccessDenied"):
            return options._replace(acl=False) if options.acl and self._acl_is_optional else None
        if code == "NotImplemented":
            # A 501 gives no reason. Try without the ACL, then without the condition, then without either.
            order = [_Options(acl, conditional) for conditional in (True, False) for acl in (True, False)]
            remaining = order[order.index(options) + 1 :]
            return next((other for other in remaining if self._is_possible(other, overwrite)), None)
        return None

    def _is_possible(self, options: _Options, overwrite: bool) -> bool:
        acl_fits = options.acl == self._sends_acl or (self._acl_is_optional and not options.acl)
        if overwrite or options.conditional:
            return acl_fits and not (overwrite and options.conditional)
        return acl_fits and self._has_conditions is not True

    def _learn(self, request: dict[str, Any], options: _Options, overwrite: bool) -> None:
        """Record which options the server supports, after a put with `options` has succeeded."""
        if self._sends_acl and not options.acl:
            self._sends_acl = False
            _log.warning(
                "S3 does not accept the ACL public-read. Images are stored without an ACL from now on. If "
                "the bucket has ACLs disabled or is private, set S3_ACL=none. Otherwise allow "
                "s3:PutObjectAcl and turn off BlockPublicAcls, for the bucket and for the account."
            )
        if self._has_conditions is None and not overwrite:
            self._has_conditions = self._obeys_conditions(request, options) if options.conditional else False
            if self._has_conditions is False:
                _log.warning(
                    "The server does not support conditional puts. If two clients upload the same name at "
                    "once, the last upload wins."
                )

    def _obeys_conditions(self, request: dict[str, Any], options: _Options) -> bool | None:
        """Repeat the conditional put that just succeeded, and return whether the server rejects it.

        Some servers ignore the condition and accept the repetition. Return None if an outage prevents a
        result. An outage must not make the upload fail here, since the object has already been stored.
        """
        try:
            self._send(request, options)
        except ClientError as exc:
            if code_of(exc) == "PreconditionFailed":
                return True
            return None if status_of(exc) >= 500 or status_of(exc) == 429 else False
        except BotoCoreError:
            return None
        return False

    def _etag_of_put(self, key: str, data: bytes, response: Mapping[str, Any]) -> str:
        """Return the response's ETag, or the MD5 of the bytes, which is the ETag of a plain put.

        OpenStack Swift sends no ETag if a later put replaced the object. But a 200 without an ETag may also
        come from something that is not S3, so this checks whether the object exists. Raises `StoreError` if
        the object does not exist.
        """
        if str(response.get("ETag", "")).strip('"'):
            return etag_of(response)
        try:
            facts_of(key, self._client.call("head_object", Key=key))
        except ClientError as exc:
            if code_of(exc) == "404":
                raise StoreError(
                    detail="PutObject: a response without an ETag, and nothing was stored"
                ) from exc
            raise
        return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _date_of(response: Mapping[str, Any]) -> datetime:
    """Return the `Date` of the response, since a response to PutObject has no LastModified.

    Return the current time if the `Date` is missing or wrong.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        date = parsedate_to_datetime(response["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
        sent = date.astimezone(UTC)
    except (OverflowError, ValueError):
        return now
    return sent if abs(sent - now) < _MAX_CLOCK_SKEW else now


def _may_have_stored(exc: ClientError) -> bool:
    """Return whether the object may have been stored despite the error.

    This is possible if botocore retried the put, or if the status is 5xx.
    """
    retries = exc.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
    return retries > 0 or status_of(exc) >= 500


def _may_be_about_metadata(exc: ClientError) -> bool:
    status, code = status_of(exc), code_of(exc)
    is_about_others = code in MEANINGS and code not in _METADATA_CODES
    return status in _METADATA_STATUSES and (status == 500 or not is_about_others)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
