"""Tests of the signatures of URLs, of the key that is created for them, and of the documented formula."""

import base64
import hashlib
import hmac
import os
import re
import shutil
import stat
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.config.settings import Config
from app.core.errors import ConfigError, SignatureRefused, StateUnavailable
from app.core.variant_keys import VariantPath
from app.services.signing import KEY_FILE, UrlSigner
from app.services.urls import variant_url_path

DOCUMENT = (Path(__file__).parents[2] / "docs/signed-urls.md").read_text(encoding="utf-8")
KEY = "0123456789abcdef"
PATH = "/api/images/a.png/w100,h100,cover.webp"
ODD_KEY = "it's (1), ~50% é/!*\"&?=+#.png"
NOW = 1_900_000_000


@pytest.fixture
def signer() -> UrlSigner:
    """Create a signer with one key."""
    return UrlSigner([KEY])


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def _parameters(query: str) -> dict[str, str]:
    return dict(part.split("=") for part in query.split("&"))


def test_the_signature_is_an_hmac_of_the_path(signer: UrlSigner) -> None:
    digest = hmac.new(KEY.encode(), PATH.encode(), hashlib.sha256).digest()
    assert signer.sign(PATH) == "sig=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
    digest = hmac.new(KEY.encode(), f"{PATH}?exp={NOW}".encode(), hashlib.sha256).digest()
    assert signer.sign(PATH, NOW) == f"exp={NOW}&sig=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


@pytest.mark.parametrize("expires_at", [None, 4_000_000_000])
def test_a_signature_is_accepted_for_its_path_alone(signer: UrlSigner, expires_at: int | None) -> None:
    query = _parameters(signer.sign(PATH, expires_at))
    signer.verify(PATH, **query)
    for other in (PATH + "x", PATH.replace("100", "101"), PATH.upper(), "", f"{PATH}?exp={expires_at}"):
        with pytest.raises(SignatureRefused, match="does not match"):
            signer.verify(other, **query)


def test_the_time_of_expiry_is_part_of_the_signature(signer: UrlSigner) -> None:
    later = int(time.time()) + 3600
    sig = _parameters(signer.sign(PATH, later))["sig"]
    for exp in (None, str(later + 1)):
        with pytest.raises(SignatureRefused, match="does not match"):
            signer.verify(PATH, sig, exp)
    with pytest.raises(SignatureRefused, match="does not match"):
        signer.verify(PATH, _parameters(signer.sign(PATH))["sig"], str(later))


def test_a_signature_expires_at_the_given_second(signer: UrlSigner, monkeypatch: pytest.MonkeyPatch) -> None:
    query = _parameters(signer.sign(PATH, NOW))
    monkeypatch.setattr(time, "time", lambda: NOW - 0.5)
    signer.verify(PATH, **query)
    monkeypatch.setattr(time, "time", lambda: float(NOW))
    with pytest.raises(SignatureRefused, match="expired"):
        signer.verify(PATH, **query)


def _same_bits(sig: str) -> str:
    """Return a different text that decodes to the same bytes, since the last character has unused bits."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = sig[:-1] + alphabet[alphabet.index(sig[-1]) + 1]
    assert base64.urlsafe_b64decode(other + "=") == base64.urlsafe_b64decode(sig + "=")
    return other


def test_malformed_signatures_are_refused(signer: UrlSigner) -> None:
    sig = _parameters(signer.sign(PATH))["sig"]
    odd = [
        "",
        "x",
        sig[:-1],
        sig + "=",
        sig + "A",
        f" {sig}",
        f"{sig}\n",
        sig[:20] + "!" + sig[20:],
        _same_bits(sig),
    ]
    for text in [*odd, sig.replace(sig[3], "é"), "A" * 10_000, "\ud800" * 43]:
        with pytest.raises(SignatureRefused, match="malformed"):
            signer.verify(PATH, text)


@pytest.mark.parametrize("exp", ["", "0", "-1", "01", "1e9", "9" * 13, "٣", "1.5", f"{NOW}\n", "never"])
def test_malformed_times_are_refused_even_if_they_are_signed(signer: UrlSigner, exp: str) -> None:
    sig = _parameters(signer.sign(f"{PATH}?exp={exp}"))["sig"]
    with pytest.raises(SignatureRefused, match="malformed"):
        signer.verify(PATH, sig, exp)


def test_the_first_key_signs_and_all_keys_verify() -> None:
    old, new = UrlSigner([KEY]), UrlSigner(["f" * 32, KEY])
    assert new.sign(PATH) == UrlSigner(["f" * 32]).sign(PATH)
    new.verify(PATH, **_parameters(old.sign(PATH)))
    new.verify(PATH, **_parameters(new.sign(PATH)))
    with pytest.raises(SignatureRefused):
        old.verify(PATH, **_parameters(new.sign(PATH)))


def test_before_a_key_is_created_no_signature_is_valid(config: Config) -> None:
    for signer in (UrlSigner.from_config(config), UrlSigner([])):
        with pytest.raises(SignatureRefused, match="does not match"):
            signer.verify(PATH, "A" * 43)
    assert not config.state_dir.exists()
    with pytest.raises(StateUnavailable):
        UrlSigner([]).sign(PATH)


def test_running_workers_accept_the_key_that_another_process_creates(config: Config) -> None:
    worker = UrlSigner.from_config(config)
    worker.verify(PATH, **_parameters(UrlSigner.from_config(config).sign(PATH)))


def test_a_key_is_created_once_and_only_its_owner_can_read_it(config: Config) -> None:
    first = UrlSigner.from_config(config).sign(PATH)
    file = config.state_dir / KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert _names(config.state_dir) == [KEY_FILE]
    assert UrlSigner.from_config(config).sign(PATH) == first
    assert UrlSigner([file.read_text().strip()]).sign(PATH) == first
    file.unlink()
    assert UrlSigner.from_config(config).sign(PATH) != first


def test_no_key_is_created_if_keys_are_set(config: Config) -> None:
    assert UrlSigner.from_config(replace(config, signing_keys=(KEY,))).sign(PATH) == UrlSigner([KEY]).sign(
        PATH
    )
    assert not config.state_dir.exists()


def test_the_key_file_is_not_read_if_variants_are_off(config: Config) -> None:
    config.state_dir.mkdir()
    (config.state_dir / KEY_FILE).write_text("short")
    UrlSigner.from_config(replace(config, variants="off"))


def test_workers_that_sign_at_once_agree_on_the_key(config: Config) -> None:
    barrier = threading.Barrier(8)

    def sign(_: int) -> str:
        barrier.wait(30)
        return UrlSigner.from_config(config).sign(PATH)

    with ThreadPoolExecutor(8) as workers:
        signatures = set(workers.map(sign, range(8)))
    assert signatures == {UrlSigner.from_config(config).sign(PATH)}
    assert _names(config.state_dir) == [KEY_FILE]


def test_a_file_system_without_hard_links(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    first = UrlSigner.from_config(config).sign(PATH)
    assert UrlSigner.from_config(config).sign(PATH) == first
    assert _names(config.state_dir) == [KEY_FILE]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"short", "damaged"),
        (b"\xff" * 43, "damaged"),
        (b"a b" * 20, "damaged"),
    ],
)
def test_an_unusable_key_file_is_reported_and_kept(config: Config, content: bytes, problem: str) -> None:
    config.state_dir.mkdir()
    file = config.state_dir / KEY_FILE
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"is {problem}.*set SIGNING_KEYS: {re.escape(str(file))}"):
        UrlSigner.from_config(config)
    assert file.read_bytes() == content
    assert UrlSigner.from_config(replace(config, signing_keys=(KEY,))).sign(PATH)


def test_an_unreadable_key_file_is_reported(config: Config) -> None:
    (config.state_dir / KEY_FILE).mkdir(parents=True)
    with pytest.raises(ConfigError, match="can't be read"):
        UrlSigner.from_config(config)


def test_a_state_directory_that_is_not_usable_only_prevents_signatures(config: Config) -> None:
    config.state_dir.write_text("a file")
    signer = UrlSigner.from_config(config)
    with pytest.raises(StateUnavailable) as caught:
        signer.sign(PATH)
    assert str(config.state_dir) in caught.value.detail
    assert str(config.state_dir) not in caught.value.message


def test_a_key_file_that_is_damaged_later_does_not_reveal_its_path(config: Config) -> None:
    signer = UrlSigner.from_config(config)
    config.state_dir.mkdir()
    (config.state_dir / KEY_FILE).write_text("short")
    for call in (lambda: signer.sign(PATH), lambda: signer.verify(PATH, "A" * 43)):
        with pytest.raises(StateUnavailable) as caught:
            call()
        assert str(config.state_dir) not in caught.value.message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_that_root_creates_belongs_to_the_owner_of_the_directory(config: Config) -> None:
    config.state_dir.mkdir()
    os.chown(config.state_dir, 12345, 12346)
    UrlSigner.from_config(config).sign(PATH)
    created = (config.state_dir / KEY_FILE).stat()
    assert (created.st_uid, created.st_gid) == (12345, 12346)


def _snippet(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.parametrize("key", ["a.png", ODD_KEY])
@pytest.mark.parametrize("expires_at", [None, NOW])
def test_the_documented_python_code_signs_like_the_server(
    signer: UrlSigner, key: str, expires_at: int | None
) -> None:
    names: dict[str, Any] = {}
    exec(_snippet("python"), names)
    path = variant_url_path(VariantPath(key, "w100,h100,cover", "webp"))
    assert (
        names["signed_path"](KEY, key, "w100,h100,cover.webp", expires_at)
        == f"{path}?{signer.sign(path, expires_at)}"
    )


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_the_documented_javascript_code_signs_like_the_server(signer: UrlSigner) -> None:
    call = f"console.log(signedPath({KEY!r}, process.argv[1], 'w100,h100,cover.webp', {NOW}));"
    call += f"console.log(signedPath({KEY!r}, process.argv[1], 'thumb'));"
    printed = subprocess.run(
        ["node", "--input-type=module", "--eval", _snippet("js") + call, "--", ODD_KEY],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    paths = [
        variant_url_path(VariantPath(ODD_KEY, *name)) for name in (("w100,h100,cover", "webp"), ("thumb", ""))
    ]
    assert printed.split() == [
        f"{path}?{signer.sign(path, expires_at)}" for path, expires_at in zip(paths, (NOW, None), strict=True)
    ]
