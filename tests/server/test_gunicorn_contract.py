"""Tests of everything that the server uses of gunicorn. If an upgrade changes any of it, they fail first.

gunicorn documents its settings, its hooks and the methods of `Worker`. Most of the other names can change in
any release.
"""

import ast
import inspect
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn import sock, systemd, util
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import errors, get_parser, wsgi
from gunicorn.http.body import Body
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.base import Worker

from app.config.settings import Config as Settings
from app.server.hooks import ServerHooks
from app.server.listeners import _ReservedIPv4Socket, _ReservedIPv6Socket
from app.server.logger import RequestLogger
from app.server.response import LoopResponse
from app.server.worker import ImageWorker

ROOT = Path(__file__).parents[2]

IMPORTED = {
    "gunicorn.sock",
    "gunicorn.systemd",
    "gunicorn.arbiter.Arbiter",
    "gunicorn.glogging.Logger",
    "gunicorn.http.get_parser",
    "gunicorn.http.wsgi",
    "gunicorn.http.wsgi.FileWrapper",
    "gunicorn.http.wsgi.Response",
    "gunicorn.http.errors.ConfigurationProblem",
    "gunicorn.http.errors.ExpectationFailed",
    "gunicorn.http.errors.ForbiddenProxyRequest",
    "gunicorn.http.errors.InvalidHeader",
    "gunicorn.http.errors.LimitRequestHeaders",
    "gunicorn.http.errors.LimitRequestLine",
    "gunicorn.http.errors.NoMoreData",
    "gunicorn.http.errors.ParseException",
    "gunicorn.http.errors.UnsupportedTransferCoding",
    "gunicorn.util.has_fileno",
    "gunicorn.workers.base.Worker",
}

OVERRIDDEN = [
    (Worker, ImageWorker, "init_process", "(self)"),
    (Worker, ImageWorker, "run", "(self)"),
    (Worker, ImageWorker, "notify", "(self)"),
    (wsgi.Response, LoopResponse, "process_headers", "(self, headers)"),
    (wsgi.Response, LoopResponse, "default_headers", "(self)"),
    (Logger, RequestLogger, "access", "(self, resp, req, environ, request_time)"),
    (sock.TCPSocket, _ReservedIPv4Socket, "set_options", "(self, sock, bound=False)"),
    (sock.TCP6Socket, _ReservedIPv6Socket, "set_options", "(self, sock, bound=False)"),
]
"""gunicorn's class, our class, and the signature of the method in gunicorn's class."""

CALLED = [
    (get_parser, "(cfg, source, source_addr, http2_connection=False)"),
    (wsgi.create, "(req, sock, client, server, cfg, response_class=None, response_args=())"),
    (wsgi.Response, "(req, sock, cfg)"),
    (wsgi.Response.start_response, "(self, status, headers, exc_info=None)"),
    (wsgi.Response.force_close, "(self)"),
    (wsgi.Response.should_close, "(self)"),
    (wsgi.Response.write, "(self, arg)"),
    (wsgi.Response.close, "(self)"),
    (RequestParser.finish_body, "(self, deadline=None, max_bytes=None)"),
    (SocketUnreader.unread, "(self, data)"),
    (SocketUnreader.take_buffered, "(self)"),
    (sock.TCPSocket, "(address, conf, log, fd=None)"),
    (sock.create_sockets, "(conf, log, fds=None)"),
    (systemd.listen_fds, "(unset_environment=True)"),
    (util.has_fileno, "(obj)"),
    (Arbiter.handle_hup, "(self)"),
    (WSGIApplication.reload, "(self)"),
    (WSGIApplication.load, "(self)"),
    (Logger.setup, "(self, cfg)"),
    (Logger.log, "(self, lvl, msg, *args, **kwargs)"),
    *(
        (getattr(Logger, name), "(self, msg, *args, **kwargs)")
        for name in ("critical", "error", "exception", "info", "warning")
    ),
    (Config.set, "(self, name, value)"),
]

STATUSES = {
    "ConfigurationProblem",
    "ExpectationFailed",
    "ForbiddenProxyRequest",
    "InvalidHeader",
    "LimitRequestHeaders",
    "LimitRequestLine",
    "UnsupportedTransferCoding",
}
"""The parse errors that are distinguished. All others are handled like their base class, `ParseException`."""

HOOKS = [
    "on_starting",
    "on_reload",
    "when_ready",
    "on_exit",
    "pre_fork",
    "post_fork",
    "post_worker_init",
    "child_exit",
]

READ_SETTINGS = [
    "address",
    "gid",
    "graceful_timeout",
    "is_ssl",
    "keepalive",
    "max_requests",
    "proxy_protocol",
    "reuse_port",
    "threads",
    "uid",
    "worker_connections",
    "workers",
]

ENVIRON = ["RAW_URI", "REMOTE_ADDR", "SCRIPT_NAME", "gunicorn.socket", "wsgi.file_wrapper", "wsgi.input"]


@pytest.fixture
def request_and_sockets() -> Iterator[tuple[Any, RequestParser, socket.socket]]:
    """Return a parsed request, the parser and the server's end of the connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        parser = get_parser(Config(), ours, ("127.0.0.1", 1))
        parser.unreader.unread(b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET")
        yield next(parser), parser, ours


def test_imports_are_those_listed_here() -> None:
    found = set()
    for path in [*(ROOT / "app").rglob("*.py"), ROOT / "gunicorn.conf.py", ROOT / "wsgi.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "gunicorn":
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("gunicorn") for alias in node.names), path
    assert found == IMPORTED


@pytest.mark.parametrize(
    ("theirs", "ours", "name", "signature"),
    OVERRIDDEN,
    ids=[f"{theirs.__name__}.{name}" for theirs, _, name, _ in OVERRIDDEN],
)
def test_overridden_methods_have_the_signature_of_the_base_class(
    theirs: type, ours: type, name: str, signature: str
) -> None:
    assert str(inspect.signature(getattr(theirs, name))) == signature
    parameters = list(inspect.signature(getattr(ours, name)).parameters)
    assert parameters == list(inspect.signature(getattr(theirs, name)).parameters)


@pytest.mark.parametrize(
    ("function", "signature"), CALLED, ids=[getattr(function, "__qualname__", "") for function, _ in CALLED]
)
def test_functions_that_are_called_have_the_expected_signature(function: Any, signature: str) -> None:
    assert str(inspect.signature(function)) == signature


def test_the_arbiter_calls_check_config_of_a_worker_class() -> None:
    """The base class has no such method, so nobody would notice if it were not called."""
    assert "self.worker_class.check_config(self.cfg, self.log)" in inspect.getsource(Arbiter.start)


@pytest.mark.parametrize(
    "name", ["alive", "cfg", "log", "max_requests", "nr", "PIPE", "ppid", "sockets", "wsgi"]
)
def test_a_worker_has_the_attribute(name: str) -> None:
    application = SimpleNamespace(wsgi=lambda: "the application")
    worker = Worker(1, os.getpid(), [], application, 30, Config(), None)
    worker.load_wsgi()
    assert hasattr(worker, name)
    worker.tmp.close()


@pytest.mark.parametrize(
    "name", ["app", "cfg", "handle_hup", "LISTENERS", "log", "SIGNALS", "systemd", "WORKERS"]
)
def test_an_arbiter_has_the_attribute(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Log:
        def __init__(self, cfg: Any) -> None:
            self.cfg = cfg

        def debug(self, *args: object) -> None:
            pass

    monkeypatch.setenv("SERVER_SOFTWARE", "restored afterwards: the arbiter sets it")
    cfg = Config()
    cfg.set("logger_class", Log)
    assert hasattr(Arbiter(SimpleNamespace(cfg=cfg)), name)


def test_an_application_has_a_cache_and_a_module() -> None:
    """A reload discards both. `callable` is the cached application, and `app_uri` the name of its module."""
    assert "self.callable is None" in inspect.getsource(WSGIApplication.wsgi)
    assert "app_uri" in inspect.getsource(WSGIApplication)


@pytest.mark.parametrize("name", READ_SETTINGS)
def test_a_setting_can_be_read(name: str) -> None:
    assert hasattr(Config(), name)


def test_every_name_that_the_configuration_file_sets_is_a_setting() -> None:
    """gunicorn ignores unknown names silently."""
    tree = ast.parse((ROOT / "gunicorn.conf.py").read_text(encoding="utf-8"))
    targets = [
        target
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    names = {target.id for target in targets if isinstance(target, ast.Name)} - {"_hooks"}
    assert names >= {"worker_class", *HOOKS}
    assert names <= Config().settings.keys()


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_takes_the_arguments_that_gunicorn_passes(name: str) -> None:
    Config().set(name, getattr(ServerHooks(Settings(), "none", lambda _: None), name))


@pytest.mark.parametrize("name", sorted(STATUSES))
def test_a_parse_error_has_the_common_base_class(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.ParseException)


def test_a_closed_connection_is_not_one_of_these_parse_errors() -> None:
    assert not any(issubclass(errors.NoMoreData, getattr(errors, name)) for name in STATUSES)


def test_the_parser_keeps_what_follows_a_request(
    request_and_sockets: tuple[Any, RequestParser, socket.socket],
) -> None:
    request, parser, _ = request_and_sockets
    assert request.version == (1, 1)
    assert request.body.read() == b"abc"
    assert parser.finish_body(max_bytes=1) is True
    assert parser.unreader.take_buffered() == b"GET"


def test_a_failed_body_closes_the_connection(
    request_and_sockets: tuple[Any, RequestParser, socket.socket],
) -> None:
    """The guard of request bodies sets `failed` when it drops a client."""
    request, parser, _ = request_and_sockets
    assert isinstance(request.body, Body)
    request.body.failed = True
    assert parser.finish_body() is False


@pytest.mark.parametrize("key", ENVIRON)
def test_the_environ_has_the_key(
    request_and_sockets: tuple[Any, RequestParser, socket.socket], key: str
) -> None:
    request, _, ours = request_and_sockets
    _, environ = wsgi.create(request, ours, ("127.0.0.1", 1), ("127.0.0.1", 2), Config())
    assert key in environ


@pytest.mark.parametrize(
    "name",
    ["_omits_body", "headers", "headers_sent", "response_length", "sent", "status", "upgrade"],
)
def test_a_response_has_the_attribute(name: str) -> None:
    assert hasattr(wsgi.Response(SimpleNamespace(method="GET", version=(1, 1)), None, Config()), name)


def test_headers_are_processed_with_only_three_attributes_of_the_response() -> None:
    """`LoopResponse` processes each header with a response that has only these, and caches the result."""
    response = wsgi.Response.__new__(wsgi.Response)
    response.headers, response.response_length, response.upgrade = [], None, False
    response.process_headers([("Content-Length", "3"), ("X-A", "b")])
    assert (response.headers, response.response_length) == ([("Content-Length", "3"), ("X-A", "b")], 3)
    assert vars(response).keys() == {"headers", "response_length", "upgrade"}


def test_a_file_wrapper_gives_its_file() -> None:
    file = object()
    assert wsgi.FileWrapper(file).filelike is file


@pytest.mark.parametrize("name", ["cfg_addr", "close", "conf", "sock"])
def test_a_listener_has_the_attribute(name: str) -> None:
    """It forwards the attributes accept, getsockname, setblocking and fileno of its socket."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = sock.TCPSocket(("127.0.0.1", 0), Config(), None)
        assert listener.getsockname() != taken.getsockname()
        assert hasattr(listener, name)
        listener.close()
