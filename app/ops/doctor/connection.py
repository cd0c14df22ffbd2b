"""Checks of the way to the bucket: credentials, connection, clock, name, region, URLs."""

from datetime import UTC, datetime
from urllib.parse import urlsplit

from app.aws.errors import SET_CREDENTIALS
from app.aws.session import CheckedCredentials, new_session
from app.core.object_keys import url_path
from app.ops.doctor.context import CheckContext, check
from app.ops.doctor.findings import Finding, NotChecked, explain_code, ok, problem, warning
from app.stores.s3.errors import DENIED, MEANINGS, MISSING

_MAX_SKEW_SECONDS = 15 * 60
"""S3 refuses requests whose time differs by more (`RequestTimeTooSkewed`)."""

_MAX_DRIFT_SECONDS = 60

_CHECK_PROXY = "Check the proxy or the other server that answers in place of S3"


@check()
def credentials(context: CheckContext) -> Finding:
    """boto3 must find credentials. The finding names their source and no part of them."""
    found = new_session().get_credentials()
    if found is None:
        return problem("boto3 finds no credentials.", SET_CREDENTIALS)
    frozen = CheckedCredentials(found).get_frozen_credentials()
    return ok(f"{'Temporary' if frozen.token else 'Long-term'} credentials, from {found.method}.")


@check()
def dotted_bucket(context: CheckContext) -> Finding:
    """S3's certificate covers one label before `s3`, so the host name of a dotted bucket does not match."""
    if "." in context.bucket and context.config.s3_addressing_style == "virtual":
        return problem(
            "TLS fails for a bucket with dots in its name and S3_ADDRESSING_STYLE=virtual.",
            "Set S3_ADDRESSING_STYLE=auto or path",
        )
    return ok("TLS works with this bucket's name.")


@check(credentials, dotted_bucket)
def s3_answers(context: CheckContext) -> Finding:
    """Any response to HeadBucket, including a refusal, shows that S3 is reachable."""
    status = context.head.status
    if status >= 500:
        return explain_code(str(status))
    return ok(f"{context.clients.s3.meta.endpoint_url} answers.")


@check(s3_answers)
def clock(context: CheckContext) -> Finding:
    """Signatures contain the time. S3 refuses those that are too far off."""
    if context.head.date is None:
        raise NotChecked("can't be checked: the server sends no date")
    difference = abs((datetime.now(UTC) - context.head.date).total_seconds())
    if difference < _MAX_DRIFT_SECONDS:
        return ok("The clocks of this machine and of S3 agree.")
    finding = problem if difference >= _MAX_SKEW_SECONDS else warning
    return finding(f"This machine's clock is {difference:,.0f} s off.", MEANINGS["RequestTimeTooSkewed"].fix)


@check(s3_answers)
def bucket_exists(context: CheckContext) -> Finding:
    """S3 must know the bucket's name. Whose bucket it is, `bucket-owner` finds out."""
    if context.head.status == 404:
        return problem(f"There is no bucket {context.bucket}.", MEANINGS["NoSuchBucket"].fix)
    if context.head.status == 400:
        raise NotChecked("can't be checked: S3 answers 400; see credentials-accepted")
    return ok(f"There is a bucket {context.bucket}.")


@check(bucket_exists)
def region(context: CheckContext) -> Finding:
    """The bucket's region, which HeadBucket reveals without permissions, must be that of our URLs."""
    found = context.head.region or context.signing_region
    if not found:
        raise NotChecked("can't be checked: the server names no region")
    if found != context.clients.region:
        return problem(
            f"The bucket is in {found}, but the server looks for it in {context.clients.region}.",
            f"Set AWS_REGION={found}",
        )
    return ok(f"The bucket is in {found}.")


@check(bucket_exists, region)
def credentials_accepted(context: CheckContext) -> Finding:
    """A signed request must be answered, or denied, without an error about the credentials."""
    code = context.missing_object_code
    if code in MEANINGS:
        return explain_code(code)
    if code.isdecimal() and code not in MISSING | DENIED:
        return problem(f"{code} without an error code is not a response of S3.", _CHECK_PROXY)
    return ok("S3 accepts the credentials.")


@check(credentials_accepted)
def missing_or_forbidden(context: CheckContext) -> Finding:
    """Without s3:ListBucket, S3 answers 403 for an object that does not exist."""
    code = context.missing_object_code
    if code in MISSING:
        return ok("A missing image is answered by 404.")
    if code in DENIED:
        return warning(
            "A missing image is answered by 403, like a forbidden one, and images can't be listed.",
            "Allow s3:ListBucket on the bucket: flask bucket iam-policy",
        )
    return problem(f"A missing image is answered by {code or 'an object'}.", _CHECK_PROXY)


@check(region)
def url_format(context: CheckContext) -> Finding:
    """S3 URLs must have the bucket's name and region as boto3 writes them, also with FIPS and dual-stack.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
    """
    url = context.store.object_url(context.probe.key)
    if url is None or not context.is_aws:
        raise NotChecked("does not apply: image URLs have no host name of AWS")
    expected = context.clients.endpoint_in(context.head.region, context.bucket)
    if url == expected.objects_url + url_path(context.probe.key):
        return ok(f"S3 URLs have the bucket's name and region: {urlsplit(expected.url).netloc}")
    return problem(
        f"The S3 URLs are not those of {context.bucket} in {context.head.region}.",
        f"Correct S3_BUCKET, and set AWS_REGION={context.head.region}",
    )
