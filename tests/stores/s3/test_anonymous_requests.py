"""Anonymous requests respect certificate authorities and proxies, and raise nothing but `NoResponse`."""

import base64
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.stores.s3.urls import NoResponse, fetch_anonymously

OK = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 3\r\n\r\nabc"


@contextmanager
def _server(answer: bytes, wrap: Callable[[socket.socket], socket.socket] | None = None) -> Iterator[int]:
    """Run a server that sends `answer` in response to its first request. Yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_answer, args=(listening, answer, wrap))
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


received: list[bytes] = []


def _answer(
    listening: socket.socket, answer: bytes, wrap: Callable[[socket.socket], socket.socket] | None
) -> None:
    plain, _ = listening.accept()
    with plain:
        try:
            with wrap(plain) if wrap else plain as connection:
                received[:] = [connection.recv(65536)]
                connection.sendall(answer)
        except OSError:
            pass  # the client did not like our certificate


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a file that contains a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "played")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def _tls(certificate: Path) -> Callable[[socket.socket], socket.socket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return lambda plain: context.wrap_socket(plain, server_side=True)


def test_aws_ca_bundle_names_the_certificate_authorities(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _server(OK, _tls(certificate)) as port, pytest.raises(NoResponse, match="SSLError"):
        fetch_anonymously("GET", f"https://127.0.0.1:{port}/a.png?secret=1")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    with _server(OK, _tls(certificate)) as port:
        answer = fetch_anonymously("GET", f"https://127.0.0.1:{port}/a.png")
    assert (answer.status, answer.content_type, answer.body) == (200, "image/png", b"abc")


def test_a_missing_bundle_raises_no_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/bundle.pem")
    with pytest.raises(NoResponse) as caught:
        fetch_anonymously("HEAD", "https://127.0.0.1:9/a.png?secret=1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_invalid_responses_raise_no_response(said: bytes) -> None:
    with _server(said) as port, pytest.raises(NoResponse, match="No response from"):
        fetch_anonymously("GET", f"http://127.0.0.1:{port}/a.png")


@pytest.mark.parametrize("url", ["http://a..b/x", "http://[::1/x", "http://127.0.0.1:99999/x", "ftp://a/x"])
def test_invalid_urls_raise_no_response(url: str) -> None:
    with pytest.raises(NoResponse):
        fetch_anonymously("HEAD", url)


def test_redirects_are_not_followed() -> None:
    said = b"HTTP/1.1 307 Away\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    with _server(said) as port:
        assert fetch_anonymously("HEAD", f"http://127.0.0.1:{port}/a.png").status == 307


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with _server(OK) as port:
        monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert fetch_anonymously("GET", "http://bucket.example.org/a.png").status == 200
    assert received[0].startswith(b"GET http://bucket.example.org/a.png HTTP/1.1\r\n")
    assert b"basic " + base64.b64encode(b"me:p@ss") in received[0].replace(b"Basic", b"basic")
