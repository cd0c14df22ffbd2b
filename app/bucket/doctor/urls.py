"""Whether the URLs that clients are told look as they should."""

from urllib.parse import urlsplit

from app.bucket.doctor.check import check
from app.bucket.doctor.finding import Finding, NotChecked, ok, problem, warning
from app.bucket.doctor.patient import Patient
from app.bucket.doctor.reach import region
from app.keys import url_path
from app.loopback import is_loopback


@check(region)
def url_format(patient: Patient) -> Finding:
    """https://BUCKET.s3.REGION.amazonaws.com/KEY, or https://s3.REGION.amazonaws.com/BUCKET/KEY.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
    """
    url = patient.store.object_url(patient.probe.key)
    if url is None or not patient.is_aws or patient.config.aws_endpoint_url_s3:
        raise NotChecked("does not apply: images are not at AWS's own host names")
    suffix = ".cn" if patient.head.region.startswith("cn-") else ""
    host = f"s3.{patient.head.region}.amazonaws.com{suffix}"
    path = url_path(patient.probe.key)
    if url in (f"https://{patient.bucket}.{host}/{path}", f"https://{host}/{patient.bucket}/{path}"):
        return ok(f"S3's URLs carry the bucket's name and region: {host}")
    return problem(
        f"S3's URLs are not those of {patient.bucket} in {patient.head.region}.",
        f"Correct S3_BUCKET, and set AWS_REGION={patient.head.region}",
    )


@check()
def https_urls(patient: Patient) -> Finding:
    """Images and credentials cross the network encrypted, except on this machine."""
    told = {
        "AWS_ENDPOINT_URL_S3": patient.config.aws_endpoint_url_s3,
        "PUBLIC_BASE_URL": patient.config.public_base_url,
    }
    plain = [name for name, url in told.items() if _is_plain(url)]
    if plain:
        return warning(
            f"{' and '.join(plain)} begins with http://.", f"Set {' and '.join(plain)} to https://…"
        )
    return ok("No URL of another machine is plain http.")


def _is_plain(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")
