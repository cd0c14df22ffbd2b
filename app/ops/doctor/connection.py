"""Checks of what is needed to reach the bucket: credentials, connection, clock, name, region and URLs."""

from datetime import UTC, datetime
from urllib.parse import urlsplit

from app.aws.errors import SET_CREDENTIALS
from app.aws.session import CheckedCredentials, new_session
from app.core.object_keys import url_path
from app.ops.doctor.context import CheckContext, check
from app.ops.doctor.findings import Finding, NotChecked, finding_for_code, ok, problem, warning
from app.stores.s3.errors import DENIED, MEANINGS, MISSING

_MAX_SKEW_SECONDS = 15 * 60
"""Clock skew above which S3 refuses requests (`RequestTimeTooSkewed`)."""

_MAX_DRIFT_SECONDS = 60
"""Clock skew above which the check warns."""

_CHECK_PROXY = "Check the proxy or the other server that answers in place of S3"


@check()
def credentials(context: CheckContext) -> Finding:
    """boto3 must find credentials. The finding names their source, but quotes no part of them."""
    found = new_session().get_credentials()
    if found is None:
        return problem("boto3 finds no credentials.", SET_CREDENTIALS)
    frozen = CheckedCredentials(found).get_frozen_credentials()
    return ok(f"{'Temporary' if frozen.token else 'Long-term'} credentials, from {found.method}.")


@check()
def dotted_bucket(context: CheckContext) -> Finding:
    """TLS must work with the bucket's name.

    The wildcard in S3's certificate matches only one label of a host name. The name of a bucket with dots
    consists of several labels.
    """
    if "." in context.bucket and context.config.s3_addressing_style == "virtual":
        return problem(
            "TLS fails because the bucket's name contains dots and S3_ADDRESSING_STYLE is virtual.",
            "Set S3_ADDRESSING_STYLE=auto or path",
        )
    return ok("TLS works with this bucket's name.")


@check(credentials, dotted_bucket)
def s3_answers(context: CheckContext) -> Finding:
    """Any response to HeadBucket, including a refusal, shows that S3 is reachable."""
    status = context.head.status
    if status >= 500:
        return finding_for_code(str(status))
    return ok(f"{context.clients.s3.meta.endpoint_url} responds.")


@check(s3_answers)
def clock(context: CheckContext) -> Finding:
    """This machine's clock must be right: S3 refuses signatures whose time is too far off."""
    if context.head.date is None:
        raise NotChecked("can't be checked: responses of the server contain no date")
    difference = abs((datetime.now(UTC) - context.head.date).total_seconds())
    if difference < _MAX_DRIFT_SECONDS:
        return ok("The clocks of this machine and of S3 agree.")
    finding = problem if difference >= _MAX_SKEW_SECONDS else warning
    return finding(f"This machine's clock is {difference:,.0f} s off.", MEANINGS["RequestTimeTooSkewed"].fix)


@check(s3_answers)
def bucket_exists(context: CheckContext) -> Finding:
    """A bucket with this name must exist. The check `bucket-owner` finds out who owns it."""
    if context.head.status == 404:
        return problem(f"There is no bucket {context.bucket}.", MEANINGS["NoSuchBucket"].fix)
    if context.head.status == 400:
        raise NotChecked("can't be checked: S3 responds with 400; see credentials-accepted")
    return ok(f"There is a bucket {context.bucket}.")


@check(bucket_exists)
def region(context: CheckContext) -> Finding:
    """The bucket must be in the region that the settings name.

    The response to HeadBucket names the bucket's region even if the credentials have no permissions.
    """
    found = context.head.region or context.signing_region
    if not found:
        raise NotChecked("can't be checked: responses of the server name no region")
    if found != context.clients.region:
        return problem(
            f"The bucket is in {found}, but the server looks for it in {context.clients.region}.",
            f"Set AWS_REGION={found}",
        )
    return ok(f"The bucket is in {found}.")


@check(bucket_exists, region)
def credentials_accepted(context: CheckContext) -> Finding:
    """S3 must accept the credentials. It may still deny requests for lack of a permission."""
    code = context.missing_object_code
    if code in MEANINGS:
        return finding_for_code(code)
    if code.isdecimal() and code not in MISSING | DENIED:
        return problem(f"A {code} without an error code does not come from S3.", _CHECK_PROXY)
    return ok("S3 accepts the credentials.")


@check(credentials_accepted)
def missing_or_forbidden(context: CheckContext) -> Finding:
    """Requests for objects that don't exist should get 404. Without `s3:ListBucket`, they get 403."""
    code = context.missing_object_code
    if code in MISSING:
        return ok("Requests for missing images get 404.")
    if code in DENIED:
        return warning(
            "Requests for missing images get 403, as for forbidden images, and images can't be listed.",
            "Allow s3:ListBucket on the bucket: flask bucket iam-policy",
        )
    return problem(f"Requests for missing images get {code or 'an object'}.", _CHECK_PROXY)


@check(region)
def url_format(context: CheckContext) -> Finding:
    """The S3 URLs of images must start with the URL that boto3 uses for the bucket in its actual region.

    That URL also depends on whether FIPS or dual-stack endpoints are used.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
    """
    url = context.store.object_url(context.probe.key)
    if url is None or not context.is_aws:
        raise NotChecked("does not apply: the images have no URLs at AWS")
    expected = context.clients.endpoint_in(context.head.region, context.bucket)
    if url == expected.objects_url + url_path(context.probe.key):
        return ok(f"S3 URLs contain the bucket's name and region: {urlsplit(expected.url).netloc}")
    return problem(
        f"The S3 URLs are not URLs of the bucket {context.bucket} in {context.head.region}.",
        f"Correct S3_BUCKET, and set AWS_REGION={context.head.region}",
    )
