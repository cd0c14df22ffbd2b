"""Checks that send requests without credentials, to find out what anonymous clients can do."""

from app.core.errors import StoreRefused
from app.core.object_keys import GENERATED_FOLDER, UPLOAD_FOLDER, url_path
from app.ops.doctor.context import CheckContext, check
from app.ops.doctor.findings import Finding, NotChecked, is_denial, ok, problem
from app.ops.doctor.probe import probe_bytes, probe_put
from app.services.urls import IMAGES_PATH
from app.stores.s3.urls import AnonymousResponse, NoResponse, fetch_anonymously

_OPEN_BUCKET = (
    "flask bucket setup --mode public; if Block Public Access of the account or the organization forbids "
    "public buckets, change that setting"
)
_FIX_SIGNATURE = (
    "Check that the server's credentials, which sign the URLs, have s3:GetObject (flask bucket iam-policy), "
    "and that this machine's clock is right (timedatectl set-ntp true)"
)
_OPEN_FOR_CDN = "Let the server at PUBLIC_BASE_URL read the images: docs/buckets.md"
_START_CDN = "Correct PUBLIC_BASE_URL, or start the server at that URL"
_CONNECT_MACHINE = (
    "Let this machine connect to the bucket's URL, or set PUBLIC_BASE_URL to the URL that browsers should use"
)
_DISABLE_ACLS = "flask bucket setup --mode private: it disables ACLs, so the ACLs of objects have no effect"
_REMOVE_ACLS = (
    "Set S3_ACL=none, and remove the ACL of each image: aws s3api put-object-acl --acl private --key …"
)

_KEYS_PER_LISTING = 8
"""Maximum number of images per listing that a check requests, to stay within its time limit."""


@check(probe_bytes)
def anonymous_get(context: CheckContext) -> Finding:
    """In public mode, everyone must be able to read the probe at its S3 URL.

    In private mode, S3 must refuse requests without credentials.
    """
    response = fetch_anonymously("GET", _object_url(context))
    if not context.is_public and response.status == 200:
        return problem(
            "The mode is private, but everyone can read the images at S3.",
            "flask bucket setup --mode private; or, if public images are intended, set IMAGE_URLS=s3",
        )
    if not context.is_public:
        return ok(f"Requests without credentials get {response.status} from S3.")
    return _check_shown(context, response, fix_denied=_OPEN_BUCKET)


@check(anonymous_get)
def public_objects(context: CheckContext) -> Finding:
    """In private mode, older images must not be public.

    An image keeps the ACL that it got when it was uploaded, even if the settings change.
    """
    if context.is_public:
        return ok("The mode is public, so browsers should be able to read all images at S3.")
    keys = _sample_keys(context)
    urls = [context.store.object_url(key) for key in keys]
    public = [
        key
        for key, url in zip(keys, urls, strict=True)
        if url and fetch_anonymously("HEAD", url).status == 200
    ]
    if public:
        return problem(
            f"The mode is private, but everyone can read {len(public)} of {len(keys)} images, such as "
            f"{public[0]}.",
            _DISABLE_ACLS if context.is_aws else _REMOVE_ACLS,
        )
    return ok(f"None of {len(keys)} images can be read without credentials.")


def _sample_keys(context: CheckContext) -> list[str]:
    """Return the keys of some images from three listings: all images, uploads, and generated images.

    The keys are spread evenly over the first page of each listing. Raises `NotChecked` if the credentials are
    not allowed to list the bucket.
    """
    found: dict[str, None] = {}
    for prefix in ("", f"{UPLOAD_FOLDER}/", f"{GENERATED_FOLDER}/"):
        try:
            keys = [facts.key for facts in context.store.list(prefix, limit=1000).objects]
        except StoreRefused as exc:
            if is_denial(exc):
                raise NotChecked("can't be checked: needs s3:ListBucket") from exc
            raise
        found |= dict.fromkeys(keys[:: max(len(keys) // _KEYS_PER_LISTING, 1)][:_KEYS_PER_LISTING])
    return [key for key in found if not key.startswith("doctor/")]


@check(probe_bytes)
def image_url(context: CheckContext) -> Finding:
    """Browsers must be able to show the image at the URL that clients get."""
    url = context.url_of(context.probe.key)
    if url.startswith(IMAGES_PATH):
        return ok(f"Clients get URLs of this server under {IMAGES_PATH}")
    if context.config.image_urls == "presigned":
        fix_denied = _FIX_SIGNATURE
    else:
        fix_denied = _OPEN_BUCKET if context.is_public else _OPEN_FOR_CDN
    try:
        return _check_shown(context, fetch_anonymously("GET", url), fix_denied=fix_denied)
    except NoResponse as exc:
        return problem(str(exc), _START_CDN if context.config.public_base_url else _CONNECT_MACHINE)


def _check_shown(context: CheckContext, response: AnonymousResponse, *, fix_denied: str) -> Finding:
    """Return the finding for the response that a browser gets at the probe's URL.

    `fix_denied` is the fix if the status is 401 or 403.
    """
    if response.status in (401, 403):
        return problem(f"Browsers get {response.status} (Access Denied).", fix_denied)
    if response.status != 200:
        return problem(
            f"Browsers get {response.status}.",
            "Check that the image URL has the right bucket name and region, or the address of the CDN",
        )
    if response.body != context.probe.data:
        return problem(
            "Browsers get different bytes than were stored.",
            "Check the CDN or proxy in front of the bucket",
        )
    if response.content_type != context.probe.content_type:
        return problem(
            f"Browsers get the image with the type {response.content_type}."
            if response.content_type
            else "Browsers get the image without a type.",
            "Let the CDN or proxy in front of the bucket pass Content-Type on",
        )
    return ok("Browsers get the image with the right type.")


@check(probe_put)
def anonymous_list(context: CheckContext) -> Finding:
    """Only the server should be able to list the bucket.

    Keys that can't be guessed don't protect images if everyone can list the keys.
    """
    bucket_url = _object_url(context).removesuffix(url_path(context.probe.key))
    response = fetch_anonymously("GET", f"{bucket_url}?list-type=2&max-keys=1")
    if response.status == 200:
        return problem(
            "Everyone can list the images of the bucket.",
            "S3 console → the bucket → Permissions: remove List for everyone from the policy and the ACL",
        )
    return ok(f"Listings without credentials get {response.status}.")


@check(probe_put)
def anonymous_put(context: CheckContext) -> Finding:
    """Only the server should be able to write to the bucket."""
    response = fetch_anonymously("PUT", _object_url(context), context.probe.data)
    if response.status < 300:
        return problem(
            "Everyone can upload to the bucket.",
            "S3 console → the bucket → Permissions: remove Write for everyone from the policy and the ACL",
        )
    return ok(f"Puts without credentials get {response.status}.")


def _object_url(context: CheckContext) -> str:
    url = context.store.object_url(context.probe.key)
    if url is None:
        raise NotChecked("does not apply: the images of this store have no URLs at S3")
    return url
