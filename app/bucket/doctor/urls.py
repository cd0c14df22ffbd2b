"""Whether the URLs that clients are told look as they should."""

from urllib.parse import urlsplit

from app.bucket.doctor.check import check
from app.bucket.doctor.finding import Finding, NotChecked, ok, problem, warning
from app.bucket.doctor.patient import Patient
from app.bucket.doctor.reach import region
from app.bucket.errors import BucketError
from app.keys import url_path
from app.loopback import is_loopback


@check(region)
def url_format(patient: Patient) -> Finding:
    """As boto3 names the bucket in the region that it lies in, by FIPS or dual-stack if that is set.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
    """
    url = patient.store.object_url(patient.probe.key)
    if url is None or not patient.is_aws:
        raise NotChecked("does not apply: images are not at AWS's own host names")
    expected = patient.clients.endpoint_in(patient.head.region, patient.bucket)
    if url == expected.objects_url + url_path(patient.probe.key):
        return ok(f"S3's URLs carry the bucket's name and region: {urlsplit(expected.url).netloc}")
    return problem(
        f"S3's URLs are not those of {patient.bucket} in {patient.head.region}.",
        f"Correct S3_BUCKET, and set AWS_REGION={patient.head.region}",
    )


@check()
def https_urls(patient: Patient) -> Finding:
    """Images and credentials cross the network encrypted, except on this machine."""
    told = {
        _name_of_endpoint(patient): _endpoint_url(patient),
        "PUBLIC_BASE_URL": patient.config.public_base_url,
    }
    plain = [name for name, url in told.items() if _is_plain(url)]
    if plain:
        return warning(
            f"{' and '.join(plain)} begins with http://.", f"Set {' and '.join(plain)} to https://…"
        )
    return ok("No URL of another machine is plain http.")


def _name_of_endpoint(patient: Patient) -> str:
    return "AWS_ENDPOINT_URL_S3" if patient.config.aws_endpoint_url_s3 else "The endpoint that boto3 is given"


def _endpoint_url(patient: Patient) -> str:
    """Return the setting, or else what boto3 uses; if it can't be asked, `credentials` says why."""
    if patient.config.aws_endpoint_url_s3 or patient.config.store != "s3":
        return patient.config.aws_endpoint_url_s3
    try:
        return patient.clients.endpoint.url
    except BucketError:
        return ""


def _is_plain(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")
