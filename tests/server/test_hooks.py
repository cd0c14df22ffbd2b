"""Tests of the server hooks, which choose the numbers and cores of workers and set up the access log."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from app.config.settings import Config
from app.server import hooks
from app.server.hooks import ServerHooks
from app.server.logger import RequestLogger


def _hooks(**settings: Any) -> ServerHooks:
    return ServerHooks(replace(Config(), **settings), "none", lambda _: None)


def _fork(server: Any, server_hooks: ServerHooks) -> Any:
    worker = SimpleNamespace()
    server_hooks.pre_fork(server, worker)
    server.WORKERS[len(server.WORKERS) + 100] = worker
    return worker


@pytest.mark.parametrize(
    ("cores", "expected"), [([4, 5, 6], [4, 5, 6]), ([4], [None, None, None])], ids=["enough", "too few"]
)
def test_a_worker_that_replaces_a_dead_one_gets_its_number_and_core(
    monkeypatch: pytest.MonkeyPatch, cores: list[int], expected: list[int | None]
) -> None:
    """Workers are pinned only if there are as many cores as workers."""
    monkeypatch.setattr(hooks, "usable_cores", lambda: cores)
    monkeypatch.setattr(hooks, "_can_pin_workers", lambda log: True)
    server: Any = SimpleNamespace(WORKERS={}, log=None)
    server_hooks = _hooks(web_concurrency=3)
    server_hooks._apply_settings(server)
    workers = [_fork(server, server_hooks) for _ in range(3)]
    assert [worker.number for worker in workers] == [0, 1, 2]
    assert [worker.core for worker in workers] == expected
    del server.WORKERS[101]
    replacement = _fork(server, server_hooks)
    assert (replacement.number, replacement.core) == (1, expected[1])


@pytest.mark.parametrize(
    ("settings", "is_logging"),
    [
        ({}, True),
        ({"log_level": "DEBUG"}, True),
        ({"log_level": "WARNING"}, False),
        ({"access_log": False}, False),
    ],
)
def test_a_reload_turns_the_access_log_on_and_off(settings: dict[str, Any], is_logging: bool) -> None:
    log = RequestLogger.__new__(RequestLogger)  # the constructor would change Python's logging
    server: Any = SimpleNamespace(log=log)
    for _ in range(2):
        _hooks(pin_workers=False, access_log=not is_logging)._apply_settings(server)
        assert (log.request_log is None) is is_logging
        _hooks(pin_workers=False, **settings)._apply_settings(server)
        assert (log.request_log is not None) is is_logging
