"""The endpoint that boto3 uses applies to requests, URLs, checksums and the cache's identity."""

from pathlib import Path

import pytest

from app.aws.session import new_session
from app.core.errors import StoreRefused
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import BucketError
from app.stores.s3.store import S3Store
from tests.s3server import S3Server
from tests.stores.s3.conftest import REGION

AT_AWS = "https://cats.s3.us-east-1.amazonaws.com/a.png"


def _profile(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    monkeypatch.setenv("AWS_PROFILE", "images")


def _by_variable(monkeypatch: pytest.MonkeyPatch, home: Path, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)


def _by_s3s_variable(monkeypatch: pytest.MonkeyPatch, home: Path, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")


def _by_profile(monkeypatch: pytest.MonkeyPatch, home: Path, url: str) -> None:
    _profile(monkeypatch, home / "config", f"[profile images]\nendpoint_url = {url}\n")


def _by_services(monkeypatch: pytest.MonkeyPatch, home: Path, url: str) -> None:
    text = f"[profile images]\nservices = ours\n[services ours]\ns3 =\n  endpoint_url = {url}\n"
    _profile(monkeypatch, home / "config", text)


WAYS = pytest.mark.parametrize("way", [_by_variable, _by_s3s_variable, _by_profile, _by_services])


@WAYS
def test_an_endpoint_that_only_boto3_reads_is_used(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: object
) -> None:
    assert callable(way)
    way(monkeypatch, tmp_path, f"{s3.url}/")
    store = S3Store(bucket, region=REGION)
    put = store.put("a.png", b"bytes", content_type="image/png")
    assert store.object_url("a.png") == f"{s3.url}/{bucket}/a.png"
    assert store.signed_url("a.png").startswith(f"{s3.url}/{bucket}/a.png?X-Amz")
    assert store.identity() == S3Store(bucket, region=REGION, endpoint_url=s3.url).identity()
    assert s3.url in store.identity()
    (headers,) = (headers for method, _, headers in s3.requests if method == "PUT")
    assert put.created
    assert "content-md5" in headers
    assert not [name for name in headers if name.startswith("x-amz-checksum") or "trailer" in name]


@WAYS
def test_bucket_commands_recognize_the_compatible_server(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: object
) -> None:
    assert callable(way)
    way(monkeypatch, tmp_path, s3.url)
    clients = AwsClients(region="garage")
    assert (clients.is_compatible_server, clients.partition) == (True, "aws")
    clients.s3.head_bucket(Bucket=bucket)
    assert s3.requests[-1][1] == f"/{bucket}"


@WAYS
@pytest.mark.parametrize("is_setting", [False, True])
def test_no_url_contains_the_password_of_an_endpoint(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: object, is_setting: bool
) -> None:
    assert callable(way)
    url = s3.url.replace("//", "//user:tell-tale@")
    way(monkeypatch, tmp_path, "http://127.0.0.1:9" if is_setting else url)
    setting = url if is_setting else ""
    store = S3Store(bucket, region=REGION, endpoint_url=setting)
    store.put("a.png", b"bytes", content_type="image/png")
    assert store.object_url("a.png") == f"{s3.url}/{bucket}/a.png"
    clients = AwsClients(region=REGION, endpoint_url=setting)
    clients.s3.head_bucket(Bucket=bucket)
    shown = (store.signed_url("a.png"), store.identity(), clients.endpoint.url, clients.s3.meta.endpoint_url)
    assert "tell-tale" not in "".join(shown)


def test_the_setting_overrides_the_endpoint_of_boto3(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = S3Store("cats", region=REGION, endpoint_url="http://127.0.0.1:8")
    assert store.object_url("a.png") == "http://127.0.0.1:8/cats/a.png"


@pytest.mark.parametrize("endpoint_url", ["", "http://127.0.0.1:9"])
def test_ignored_endpoint_urls_have_no_effect(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, endpoint_url: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    store = S3Store("cats", region=REGION, endpoint_url=endpoint_url)
    assert (store.object_url("a.png"), store.identity()) == (AT_AWS, "s3  cats")
    assert store._client.boto3_client().meta.endpoint_url == "https://s3.us-east-1.amazonaws.com"
    assert ("AWS_ENDPOINT_URL_S3 has no effect" in caplog.text) is bool(endpoint_url)
    assert not AwsClients(region=REGION, endpoint_url=endpoint_url).is_compatible_server


VARIANTS = [
    ({"AWS_USE_FIPS_ENDPOINT": "true"}, "https://cats.s3-fips.us-east-1.amazonaws.com/a.png"),
    ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "https://cats.s3.dualstack.us-east-1.amazonaws.com/a.png"),
]


@pytest.mark.parametrize(("variables", "url"), VARIANTS)
def test_fips_and_dual_stack_endpoints_lead_to_the_same_bucket(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str
) -> None:
    """The identity stays the same, so the cache is kept."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = S3Store("cats", region=REGION)
    assert (store.object_url("a.png"), store.identity()) == (url, "s3  cats")
    assert store._client.boto3_client().meta.endpoint_url in url.replace("cats.", "")
    assert AwsClients(region=REGION).endpoint_in(REGION, "cats").objects_url + "a.png" == url


@pytest.mark.parametrize(
    ("region", "url", "identity"),
    [
        ("eusc-de-east-1", "https://cats.s3.eusc-de-east-1.amazonaws.eu/a.png", "s3 aws-eusc cats"),
        ("us-iso-east-1", "https://cats.s3.us-iso-east-1.c2s.ic.gov/a.png", "s3 aws-iso cats"),
        ("cn-north-1", "https://cats.s3.cn-north-1.amazonaws.com.cn/a.png", "s3 aws-cn cats"),
        ("us-gov-west-1", "https://cats.s3.us-gov-west-1.amazonaws.com/a.png", "s3 aws-us-gov cats"),
        ("eu-west-1", "https://cats.s3.eu-west-1.amazonaws.com/a.png", "s3  cats"),
    ],
)
def test_partitions_have_their_own_suffixes_and_bucket_names(
    s3: S3Server, region: str, url: str, identity: str
) -> None:
    store = S3Store("cats", region=region)
    assert (store.object_url("a.png"), store.identity()) == (url, identity)
    assert store.signed_url("a.png").startswith(f"{url}?")


@pytest.mark.parametrize("end", ["", "/"])
def test_an_endpoint_of_aws_counts_as_aws(s3: S3Server, end: str) -> None:
    store = S3Store("cats", region=REGION, endpoint_url=f"https://s3.us-east-1.amazonaws.com{end}")
    assert (store.object_url("a.png"), store.identity()) == (AT_AWS, "s3  cats")
    assert store._client.is_aws


def test_a_directory_bucket_has_its_own_host(s3: S3Server) -> None:
    url = S3Store("cats--usw2-az1--x-s3", region="us-west-2").object_url("a.png")
    assert url == "https://cats--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com/a.png"


def test_a_server_on_an_ec2_instance_is_a_compatible_server(s3: S3Server) -> None:
    url = "http://ec2-1-2-3-4.compute-1.amazonaws.com:9000"
    store = S3Store("cats", region=REGION, endpoint_url=url)
    assert (store.object_url("a.png"), store._client.is_aws) == (f"{url}/cats/a.png", False)


def test_the_identity_needs_no_credentials(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The identity is read when a worker starts. A failing credential provider must not empty the cache."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    _by_profile(monkeypatch, tmp_path, s3.url)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/role")
    assert S3Store("cats", region=REGION).identity() == f"s3 {s3.url} cats"


def test_without_the_profile_the_identity_comes_from_the_settings(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    assert S3Store("cats", region=REGION).identity() == "s3  cats"
    assert S3Store("cats", endpoint_url=f"{s3.url}/").identity() == f"s3 {s3.url} cats"


def test_sts_is_called_in_the_partition_of_the_bucket(s3: S3Server) -> None:
    """The credentials of a region in China are not valid in Virginia."""
    session = new_session(region="cn-north-1")
    assert session.client("sts").meta.endpoint_url == "https://sts.cn-north-1.amazonaws.com.cn"
    for region in ("garage", ""):
        session = new_session(region=region)
        assert session.client("sts").meta.endpoint_url == "https://sts.us-east-1.amazonaws.com"


UNUSABLE = [
    ({"AWS_ENDPOINT_URL": "localhost:9000"}, "Invalid endpoint"),
    ({"AWS_ENDPOINT_URL_S3": "minio"}, "Invalid endpoint"),
    ({"AWS_DEFAULTS_MODE": "fast"}, "defaults mode"),
    ({"AWS_MAX_ATTEMPTS": "many"}, "many"),
    ({"AWS_USE_FIPS_ENDPOINT": "true", "AWS_DEFAULT_REGION": "cn-north-1"}, "FIPS"),
]


@pytest.mark.parametrize(("variables", "reason"), UNUSABLE)
def test_a_variable_that_boto3_can_not_use_is_named_in_the_refusal(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = S3Store("cats")
    for ask in (store.object_url, store.signed_url, store.head):
        with pytest.raises(StoreRefused, match=f"(?i){reason}.*Correct the AWS_"):
            ask("a.png")
    assert store.identity() == "s3  cats"
    with pytest.raises(BucketError, match=f"(?i){reason}.*Correct the AWS_"):
        AwsClients().s3.list_buckets()
