"""What a visitor without credentials can do, found out by trying.

Whether the URLs that clients are told look as they should.
"""

from urllib.parse import urlsplit

from app.core.addresses import is_loopback
from app.core.errors import StoreRefused
from app.core.object_keys import GENERATED_FOLDER, UPLOAD_FOLDER, url_path
from app.ops.bucket.errors import BucketError
from app.ops.doctor.findings import Finding, NotChecked, is_denial, ok, problem, warning
from app.ops.doctor.patient import Patient, check
from app.ops.doctor.probe import probe_bytes, probe_put
from app.ops.doctor.reach import region
from app.services.urls import IMAGES_PATH
from app.stores.s3.urls import AnonymousResponse, NoResponse, fetch_anonymously


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


_OPEN_IT = (
    "flask bucket setup --mode public; where the whole account or organization blocks public access, "
    "lift that there"
)
_SIGN_RIGHT = (
    "Check the credentials that sign, which need s3:GetObject (flask bucket iam-policy), and this machine's "
    "clock: timedatectl set-ntp true"
)
_SERVE_IT = "Correct PUBLIC_BASE_URL, or start what serves it"
_REACH_IT = "Let this machine reach the bucket's own URL, or set PUBLIC_BASE_URL to what browsers shall ask"
_DISABLE_ACLS = "flask bucket setup --mode private: without ACLs, those that objects have count no more"
_TAKE_ACLS = "Set S3_ACL=none, and take the ACL from each: aws s3api put-object-acl --acl private --key …"
_OF_EACH = 8
"""How many images of each listing are looked at: a request each, within the seconds that a check has."""
_LET_IT_READ = "Let what stands at PUBLIC_BASE_URL read the images: docs/buckets.md"


@check(probe_bytes)
def anonymous_get(patient: Patient) -> Finding:
    """S3's own URL of the probe: open in public mode, closed in private mode."""
    answer = fetch_anonymously("GET", _object_url(patient))
    if not patient.is_public and answer.status == 200:
        return problem(
            "Private, but everybody can read the images at S3.",
            "flask bucket setup --mode private; or, where that is meant, IMAGE_URLS=s3",
        )
    if not patient.is_public:
        return ok(f"Without credentials S3 answers {answer.status}.")
    return _shown(patient, answer)


@check(anonymous_get)
def public_objects(patient: Patient) -> Finding:
    """Images stored before: the ACL that an upload gave them stays, whatever the settings say now."""
    if patient.is_public:
        return ok("Browsers are meant to read the images at S3.")
    keys = _some_keys(patient)
    urls = [patient.store.object_url(key) for key in keys]
    public = [
        key
        for key, url in zip(keys, urls, strict=True)
        if url and fetch_anonymously("HEAD", url).status == 200
    ]
    if public:
        return problem(
            f"Private, but everybody can read {len(public)} of {len(keys)} images, such as {public[0]}.",
            _DISABLE_ACLS if patient.is_aws else _TAKE_ACLS,
        )
    return ok(f"None of {len(keys)} images can be read without credentials.")


@check(probe_put)
def anonymous_list(patient: Patient) -> Finding:
    """Names that can't be guessed hide nothing where everybody can list them."""
    answer = fetch_anonymously("GET", f"{_bucket_url(patient)}?list-type=2&max-keys=1")
    if answer.status == 200:
        return problem(
            "Everybody can list the bucket's images.",
            "S3 console → the bucket → Permissions: take List from everybody in policy and ACL",
        )
    return ok(f"Without credentials a listing is answered by {answer.status}.")


@check(probe_put)
def anonymous_put(patient: Patient) -> Finding:
    """Only the server may write."""
    answer = fetch_anonymously("PUT", _object_url(patient), patient.probe.data)
    if answer.status < 300:
        return problem(
            "Everybody can upload to the bucket.",
            "S3 console → the bucket → Permissions: take Write from everybody in policy and ACL",
        )
    return ok(f"Without credentials a put is answered by {answer.status}.")


@check(probe_bytes)
def image_url(patient: Patient) -> Finding:
    """The URL that clients are told, opened as a browser would."""
    url = patient.url_of(patient.probe.key)
    if url.startswith(IMAGES_PATH):
        return ok(f"Clients are told this server's own URLs, under {IMAGES_PATH}")
    try:
        return _shown(patient, fetch_anonymously("GET", url), denied=_way_in(patient))
    except NoResponse as exc:
        return problem(str(exc), _SERVE_IT if patient.config.public_base_url else _REACH_IT)


def _shown(patient: Patient, answer: AnonymousResponse, denied: str = _OPEN_IT) -> Finding:
    """Whether `answer` shows the probe in a browser; `denied` is the fix where it is a refusal."""
    if answer.status in (401, 403):
        return problem(f"Browsers are answered {answer.status} (Access Denied).", denied)
    if answer.status != 200:
        return problem(
            f"Browsers are answered {answer.status}.",
            "Compare the URL with the bucket's name, region and CDN",
        )
    if answer.body != patient.probe.data:
        return problem("Browsers get other bytes than were stored.", "Look at what stands before the bucket")
    if answer.content_type != patient.probe.content_type:
        return problem(
            f"Browsers get the image as {answer.content_type or 'no type'}.",
            "Let what stands before the bucket pass Content-Type on",
        )
    return ok("Browsers get the image, and its type.")


def _way_in(patient: Patient) -> str:
    """What lets browsers in at the URL that clients are told."""
    if patient.config.image_urls == "presigned":
        return _SIGN_RIGHT
    return _OPEN_IT if patient.is_public else _LET_IT_READ


def _some_keys(patient: Patient) -> list[str]:
    """Return a few keys, spread over the first page of all images, of uploads and of generated ones."""
    found: dict[str, None] = {}
    for prefix in ("", f"{UPLOAD_FOLDER}/", f"{GENERATED_FOLDER}/"):
        try:
            keys = [facts.key for facts in patient.store.list(prefix, limit=1000).objects]
        except StoreRefused as exc:
            if is_denial(exc):
                raise NotChecked("can't be checked: needs s3:ListBucket") from exc
            raise
        found |= dict.fromkeys(keys[:: max(len(keys) // _OF_EACH, 1)][:_OF_EACH])
    return [key for key in found if not key.startswith("doctor/")]


def _object_url(patient: Patient) -> str:
    url = patient.store.object_url(patient.probe.key)
    if url is None:
        raise NotChecked("does not apply: this store's images have no URL of their own")
    return url


def _bucket_url(patient: Patient) -> str:
    return _object_url(patient).removesuffix(url_path(patient.probe.key))
