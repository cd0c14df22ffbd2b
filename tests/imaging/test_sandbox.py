"""Images are checked in child processes with effective limits. A failing child affects no other images."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from app.core.errors import AppError, Busy, TooManyPixels, UndecodableImage, UnsupportedImage
from app.core.variant_specs import parse_spec
from app.imaging.check import check_image
from app.imaging.sandbox import client
from app.imaging.sandbox.client import Sandbox
from app.imaging.sandbox.protocol import max_stored_bytes, max_variant_bytes
from app.imaging.survey import ImageLimits
from app.imaging.thumbhash import thumbhash
from app.imaging.variants import VariantRequest, describe_image, make_variant
from tests.server.trees import children_of, is_there
from tests.waiting import wait_until

from .samples import KINDS, LIMITS, RAW_LIMITS, exif, picture, sample, saved

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")

COMPROMISED_HOST = Path(__file__).with_name("compromised_host.py")


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox that the test is allowed to break."""
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def hostile() -> Iterator[Sandbox]:
    """A sandbox whose children do what the "image" says."""
    sandbox = Sandbox(COMPROMISED_HOST)
    yield sandbox
    sandbox.close()


@pytest.mark.parametrize(("name", "animated"), KINDS)
@pytest.mark.parametrize("limits", [LIMITS, RAW_LIMITS], ids=["strip", "raw"])
def test_the_result_equals_that_of_check_image(
    shared: Sandbox, name: str, animated: bool, limits: ImageLimits
) -> None:
    data = sample(name, animated)
    assert shared.check(data, limits) == check_image(data, limits)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_rotated_images_come_back_with_their_new_bytes(shared: Sandbox, name: str) -> None:
    data = saved(picture(), name, exif=exif(6))
    checked = shared.check(data, LIMITS)
    assert checked == check_image(data, LIMITS)
    assert (checked.width, checked.height) == (32, 48)


@pytest.mark.parametrize(
    ("data", "limits", "kind"),
    [
        (b"<svg/>", LIMITS, UnsupportedImage),
        (b"", LIMITS, UnsupportedImage),
        (sample("png")[:-20], LIMITS, UndecodableImage),
        (sample("png"), replace(LIMITS, max_pixels=10), TooManyPixels),
        (sample("png"), replace(LIMITS, formats=("gif",)), UnsupportedImage),
    ],
)
def test_refusals_equal_those_of_check_image(
    shared: Sandbox, data: bytes, limits: ImageLimits, kind: type[AppError]
) -> None:
    with pytest.raises(kind) as here:
        check_image(data, limits)
    with pytest.raises(kind) as there:
        shared.check(data, limits)
    assert type(there.value) is type(here.value)
    assert (there.value.message, there.value.detail) == (here.value.message, here.value.detail)


@pytest.mark.parametrize(
    ("action", "message", "logged"),
    [
        (b"crash", "damaged or incomplete", "signal 11"),
        (b"abort", "damaged or incomplete", "signal 6"),
        (b"exit", "damaged or incomplete", "status 7"),
        (b"burn", "more time or memory", "limit on CPU time"),
        (b"wait", "more time or memory", "limit on wall-clock time"),
        (b"take_memory", "more time or memory", "limit on memory"),
    ],
)
def test_a_decoder_that_crashes_or_exceeds_a_limit_fails_only_its_image(
    hostile: Sandbox, caplog: pytest.LogCaptureFixture, action: bytes, message: str, logged: str
) -> None:
    assert hostile.check(sample("png"), LIMITS).width == 48
    before = hostile.host_pid
    with pytest.raises(UndecodableImage, match=message) as caught:
        hostile.check(action, LIMITS)
    assert (caught.value.status, caught.value.code) == (422, "undecodable_image")
    assert logged in caplog.text
    assert hostile.check(sample("png"), LIMITS).width == 48
    assert hostile.host_pid == before
    assert children_of(before) == []


@pytest.mark.parametrize("name", ["avif", "webp", "png"])
def test_memory_is_limited_by_the_declared_pixels(hostile: Sandbox, name: str) -> None:
    """If an image is larger than its container declares, it gets only enough memory for the declared size."""
    data = saved(picture(size=(6000, 6000)), name)
    limits = replace(LIMITS, max_pixels=40_000_000)
    with pytest.raises(UndecodableImage):
        hostile.check(data, limits)
    assert check_image(data, limits).width == 6000


def test_memory_is_lower_before_the_pixels_are_counted(hostile: Sandbox) -> None:
    with pytest.raises(UndecodableImage, match="more time or memory"):
        hostile.check(b"take_some", replace(LIMITS, max_pixels=40_000_000))


def report(**changed: object) -> bytes:
    """Return a valid report from a child that checked an image, with some fields changed."""
    valid = {"format": "png", "info": facts()}
    return json.dumps(valid | changed).encode() + b"\n"


def facts(**changed: object) -> dict[str, object]:
    """Return valid facts about an image, with some of them changed."""
    placeholder = thumbhash(picture())
    return {"width": 48, "height": 32, "frames": 1, "has_alpha": False, "thumbhash": placeholder} | changed


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\n",
        b"no json\n",
        b"{}\n",
        b"[]\n",
        b"[" * 10_000 + b"\n",
        b"x" * 100_000,
        b"\xff\xfe\n",
        report(info=facts(width=0)),
        report(info=facts(width=-1)),
        report(info=facts(width=1.5)),
        report(info=facts(width="48")),
        report(info=facts(width=True)),
        report(info=facts(width=None)),
        report(info=facts(width=2**70)),
        report(info=facts(frames=10**6)),
        report(info=facts(has_alpha=1)),
        report(info=facts(has_alpha=None)),
        report(info=facts(thumbhash=None)),
        report(info=facts(thumbhash="")),
        report(info=facts(thumbhash="x" * 100)),
        report(info=facts(thumbhash="<script>")),
        report(info=None),
        report(info=[]),
        report(format="svg"),
        report(format=["png"]),
        report(),  # but the bytes are not a PNG
        report(changed=True),  # but there are no changed bytes
        report() * 2,
        b'{"status": 0}\n',
        b'{"refused": "internal_error", "message": "", "detail": ""}\n',
        b'{"refused": "undecodable_image"}\n',
        b'{"refused": ["undecodable_image"], "message": "", "detail": ""}\n',
        json.dumps({"refused": "undecodable_image", "message": "x" * 501, "detail": ""}).encode() + b"\n",
        json.dumps({"refused": "undecodable_image", "message": "a\nb", "detail": ""}).encode() + b"\n",
    ],
    ids=repr,
)
def test_invalid_reports_from_a_child_are_refused(hostile: Sandbox, said: bytes) -> None:
    with pytest.raises(UndecodableImage) as caught:
        hostile.check(b"say\0" + said, LIMITS)
    assert "invalid report" in caught.value.detail or "ended with" in caught.value.detail
    assert hostile.check(sample("png"), LIMITS).width == 48


@pytest.mark.parametrize(
    "action",
    [b"shut\0", b"shut\0" + report(), b"say\0{}" + b" " * 100_000],
    ids=["nothing", "a report", "an endless report"],
)
def test_a_child_that_shuts_its_socket_does_not_end_the_host(hostile: Sandbox, action: bytes) -> None:
    """If it ended the host, all other images that are being decoded would be lost."""
    hostile.check(sample("png"), LIMITS)
    before = hostile.host_pid
    with pytest.raises(UndecodableImage) as caught:
        hostile.check(action, LIMITS)
    assert "no report of how the child ended" in caught.value.detail
    assert hostile.check(sample("png"), LIMITS).width == 48
    assert hostile.host_pid == before
    wait_until(lambda: children_of(before) == [])


@pytest.mark.parametrize("said", [report(), report(changed=True), report(changed=1)], ids=repr)
def test_files_that_a_child_sends_are_not_read(hostile: Sandbox, said: bytes) -> None:
    with pytest.raises(UndecodableImage) as caught:
        hostile.check(b"hand_over\0" + said, LIMITS)
    assert "invalid report" in caught.value.detail


def test_the_bytes_that_a_child_writes_are_limited(hostile: Sandbox) -> None:
    with pytest.raises(UndecodableImage) as caught:
        hostile.check(b"fill", LIMITS)
    assert 0 < int(caught.value.detail) <= 2 * max_stored_bytes(4, LIMITS.max_pixels)  # there are two files


LIMITED = """
import resource, sys
from app.imaging.sandbox.confinement import limit_resources, raise_limits
from app.imaging.sandbox.confinement import decoding_limits, survey_limits
kinds = [resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE]
highest = [1 << 30, 20, 1 << 20]
for kind, hard in zip(kinds, highest):
    resource.setrlimit(kind, (hard, hard))
limit_resources(survey_limits(1000), decoding_limits(1000, 50_000_000), 100 << 20, 1 << 28)
raise_limits(decoding_limits(1000, 50_000_000), 100 << 20)
assert [resource.getrlimit(kind) for kind in kinds] == [(hard, hard) for hard in highest]
"""


def test_lower_limits_of_the_server_remain_in_force() -> None:
    """Only root can raise them. A child that tried to would fail before it reads its image."""
    subprocess.run([sys.executable, "-c", LIMITED], cwd=Path(__file__).parents[2], check=True)


def test_a_child_can_only_report(hostile: Sandbox, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        written = tmp_path / str(listener.getsockname()[1])
        with pytest.raises(UndecodableImage) as caught:
            hostile.check(b"break_out\0" + bytes(written), LIMITS)
    assert not written.exists()
    assert caught.value.detail == ""


def test_a_host_that_an_image_kills_is_restarted_once(
    hostile: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AppError) as caught:
        hostile.check(b"kill_host", LIMITS)
    assert type(caught.value) in (Busy, UndecodableImage)
    assert caplog.text.count("Restarting the decoder host") <= 2  # once for each attempt
    assert hostile.check(sample("png"), LIMITS).width == 48


def test_a_killed_host_is_restarted(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    sandbox.check(sample("png"), LIMITS)
    first = sandbox.host_pid
    os.kill(first, signal.SIGKILL)
    assert sandbox.check(sample("gif"), LIMITS).width == 48
    assert sandbox.host_pid != first
    assert not Path(f"/proc/{first}").exists()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_an_image_is_checked_again_if_its_host_is_killed(sandbox: Sandbox) -> None:
    data = saved(picture(size=(1500, 1500)), "webp", lossless=True, exif=exif(6))
    limits = replace(LIMITS, max_pixels=4_000_000)
    sandbox.check(sample("png"), LIMITS)
    first = sandbox.host_pid
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(sandbox.check, data, limits)
        child = wait_until(lambda: children_of(first))[0]
        os.kill(first, signal.SIGKILL)
        assert checked.result(120).width == 1500
    wait_until(lambda: not is_there(child))


def _is_gone(pid: int) -> bool:
    return not is_there(pid)


def _has_another_host(sandbox: Sandbox, pid: int) -> bool:
    return sandbox.host_pid != pid


def test_children_end_with_their_host() -> None:
    sandbox = Sandbox(COMPROMISED_HOST)
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(sandbox.check, b"linger", LIMITS)
        for _ in range(2):
            host = wait_until(lambda: sandbox.host_pid)
            (child,) = wait_until(partial(children_of, host))
            os.kill(host, signal.SIGKILL)
            wait_until(partial(_is_gone, child))
            wait_until(partial(_has_another_host, sandbox, host))
        with pytest.raises(Busy):
            checked.result(120)
    sandbox.close()


def test_busy_is_raised_if_no_host_can_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(tmp_path / "missing.py")
    with pytest.raises(Busy) as caught:
        sandbox.check(sample("png"), LIMITS)
    assert (caught.value.status, caught.value.retry_after) == (503, 2)
    sandbox.close()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(Busy):
        sandbox.check(sample("png"), LIMITS)


def test_a_host_that_does_not_respond_is_killed(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.check(sample("png"), LIMITS)
    stopped = sandbox.host_pid
    os.kill(stopped, signal.SIGSTOP)
    monkeypatch.setattr(client, "_HOST_GRACE_SECONDS", -1000.0)
    with pytest.raises(Busy):
        sandbox.check(sample("png"), LIMITS)
    monkeypatch.undo()
    assert not Path(f"/proc/{stopped}").exists()
    assert sandbox.check(sample("png"), LIMITS).width == 48


def test_64_images_are_checked_at_once(shared: Sandbox) -> None:
    kinds = [KINDS[number % len(KINDS)] for number in range(64)]
    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(lambda kind: shared.check(sample(*kind), LIMITS), kinds))
    assert [checked.format.name for checked in found] == [name for name, _ in kinds]
    assert children_of(shared.host_pid) == []


def test_no_descriptor_thread_or_process_is_left_behind(shared: Sandbox) -> None:
    def resources() -> tuple[int, int, int]:
        own, host = (len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in ("self", shared.host_pid))
        return own, host, threading.active_count()

    def use(times: int) -> None:
        for number in range(times):
            shared.check(sample("png"), LIMITS)
            with pytest.raises(AppError):
                shared.check(sample("png")[: 60 + number], LIMITS)
            shared.check(saved(picture(), "jpeg", exif=exif(6)), LIMITS)

    use(2)
    before = resources()
    use(70)
    assert resources() == before
    assert children_of(shared.host_pid) == []


def test_the_host_has_no_secrets_and_no_inherited_files(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, tmp_path: Path
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "API_KEYS", "OPENAI_API_KEY", "RATELIMIT_STORAGE_URI"):
        monkeypatch.setenv(name, "a-secret")
    with open(tmp_path / "open", "wb") as file:
        os.set_inheritable(file.fileno(), True)
        sandbox.check(sample("png"), LIMITS)
        its = Path(f"/proc/{sandbox.host_pid}")
        opened = [str(path.readlink()) for path in (its / "fd").iterdir()]
    variables = {entry.partition(b"=")[0] for entry in (its / "environ").read_bytes().split(b"\0") if entry}
    variables -= {b"glibc.malloc.mmap_threshold"}  # some versions of glibc split GLIBC_TUNABLES in place
    assert variables <= {b"MALLOC_ARENA_MAX", b"GLIBC_TUNABLES", b"LD_LIBRARY_PATH", b"TMPDIR"}
    assert str(tmp_path / "open") not in opened
    assert b"a-secret" not in (its / "cmdline").read_bytes()
    mapped = (its / "maps").read_text()
    assert "_imaging" in mapped
    assert "_ssl" not in mapped  # boto3, Flask and the OpenAI client would all load it


def test_the_host_exits_when_its_socket_closes(sandbox: Sandbox) -> None:
    sandbox.check(sample("png"), LIMITS)
    host = sandbox.host_pid
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
    ):  # signals sent to a whole process group or container
        os.kill(host, number)
    assert sandbox.check(sample("png"), LIMITS).width == 48
    assert sandbox.host_pid == host
    lost, sandbox._host = sandbox._host, None
    assert lost is not None
    lost.close_socket()
    os.waitpid(host, 0)


def test_a_forked_process_starts_its_own_host(sandbox: Sandbox) -> None:
    sandbox.check(sample("png"), LIMITS)
    host = sandbox.host_pid
    sandbox.forget()
    os.waitpid(host, 0)  # it ends, because no other process has its socket open
    assert sandbox.check(sample("png"), LIMITS).width == 48
    assert sandbox.host_pid != host


def test_closing_the_socket_of_a_job_kills_its_child(
    hostile: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile.check(sample("png"), LIMITS)
    children: list[int] = []

    def stop_waiting(job: object, socket: object) -> bytes:
        children.extend(wait_until(lambda: children_of(hostile.host_pid)))
        return b'{"status": 0}\n'

    monkeypatch.setattr(client._RunningJob, "_receive", stop_waiting)
    with pytest.raises(UndecodableImage):
        hostile.check(b"linger", LIMITS)
    wait_until(lambda: not is_there(children[0]))


REQUEST = VariantRequest(parse_spec("w24"), "webp", 24 * 16)


@pytest.mark.parametrize("text", ["w24", "w20,h20,cover,smart", "w20,h30,pad,bg112233,q70", "h9,still"])
@pytest.mark.parametrize("format", ["avif", "gif", "jpeg", "png", "webp"])
def test_variants_equal_those_of_make_variant(shared: Sandbox, text: str, format: str) -> None:
    request = VariantRequest(parse_spec(text), format, 10_000)
    expected = make_variant(sample("gif", True), request, LIMITS)
    assert shared.make(sample("gif", True), request, LIMITS) == expected


def test_flattened_animations_and_facts_are_reported(shared: Sandbox) -> None:
    expected = make_variant(sample("gif", True), REQUEST, LIMITS)
    assert expected.is_flattened
    assert shared.make(sample("gif", True), REQUEST, LIMITS) == expected
    for data in (sample("gif", True), sample("png")):
        assert shared.describe(data, LIMITS) == describe_image(data, LIMITS)


@pytest.mark.parametrize(
    ("data", "limits", "request_", "kind"),
    [
        (b"<svg/>", LIMITS, REQUEST, UnsupportedImage),
        (sample("jpeg")[:-60], LIMITS, REQUEST, UndecodableImage),
        (sample("png"), replace(LIMITS, max_pixels=10), REQUEST, TooManyPixels),
        (sample("png"), LIMITS, replace(REQUEST, max_pixels=24 * 16 - 1), TooManyPixels),
    ],
    ids=["format", "damaged", "source", "result"],
)
def test_refused_variants_equal_those_of_make_variant(
    shared: Sandbox, data: bytes, limits: ImageLimits, request_: VariantRequest, kind: type[AppError]
) -> None:
    with pytest.raises(kind) as here:
        make_variant(data, request_, limits)
    with pytest.raises(kind) as there:
        shared.make(data, request_, limits)
    assert type(there.value) is type(here.value)
    assert (there.value.message, there.value.detail) == (here.value.message, here.value.detail)


def made_report(**changed: object) -> bytes:
    """Return a valid report from a child that made a variant, with some fields changed."""
    valid = {"width": 24, "height": 16, "frames": 1, "flattened": False, "source": [24, 16, 1]}
    return json.dumps(valid | changed).encode() + b"\n"


def say(report: bytes, data: bytes) -> bytes:
    """Return an "image" that has a child write `data` as its result and send `report`."""
    return b"write\0" + len(data).to_bytes(4, "big") + data + report


VARIANT = make_variant(sample("png"), REQUEST, LIMITS).data


def test_a_valid_report_about_a_variant_is_accepted(hostile: Sandbox) -> None:
    """Otherwise, the tests below could not fail."""
    made = hostile.make(say(made_report(), VARIANT), REQUEST, LIMITS)
    assert (made.data, made.width, made.height, made.frames) == (VARIANT, 24, 16, 1)


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"{}\n",
        made_report(width=25),
        made_report(width=0),
        made_report(width=24.0),
        made_report(height=17),
        made_report(height=33),
        made_report(frames=2),
        made_report(frames=True),
        made_report(flattened=None),
        made_report(flattened=0),
        made_report(source=None),
        made_report(source=[24, 16]),
        made_report(source=[23, 16, 1]),
        made_report(source=[24, 16, 10**6]),
        made_report(source=[10**6, 16, 1]),
        made_report(source=["24", 16, 1]),
        made_report() * 2,
    ],
    ids=repr,
)
def test_invalid_reports_about_variants_are_refused(hostile: Sandbox, report: bytes) -> None:
    with pytest.raises(UndecodableImage) as caught:
        hostile.make(say(report, VARIANT), REQUEST, LIMITS)
    assert "invalid report" in caught.value.detail or "ended with" in caught.value.detail


@pytest.mark.parametrize("data", [b"", b"<html>", sample("png")], ids=["nothing", "HTML", "another format"])
def test_other_bytes_than_the_variant_are_refused(hostile: Sandbox, data: bytes) -> None:
    with pytest.raises(UndecodableImage):
        hostile.make(say(made_report(), data), REQUEST, LIMITS)
    assert hostile.make(sample("png"), REQUEST, LIMITS).data == VARIANT


def test_the_size_of_a_variant_is_limited(hostile: Sandbox) -> None:
    most = max_variant_bytes(REQUEST.max_pixels)
    data = hostile.make(say(made_report(), VARIANT + bytes(2 * most)), REQUEST, LIMITS).data
    assert len(data) == most
    large = replace(REQUEST, max_pixels=1_000_000)
    with pytest.raises(UndecodableImage, match="invalid report"):
        hostile.make(say(made_report(), VARIANT + bytes(2 * most)), large, LIMITS)


@pytest.mark.parametrize("report", [b"{}\n", report(info=facts(height=0)), report(info=[])], ids=repr)
def test_invalid_descriptions_are_refused(hostile: Sandbox, report: bytes) -> None:
    with pytest.raises(UndecodableImage) as caught:
        hostile.describe(b"say\0" + report, LIMITS)
    assert "invalid report" in caught.value.detail


@pytest.mark.parametrize("action", [b"crash", b"take_memory", b"exit"])
def test_a_child_that_crashes_fails_only_its_variant(hostile: Sandbox, action: bytes) -> None:
    with pytest.raises(UndecodableImage):
        hostile.make(action, REQUEST, LIMITS)
    assert hostile.make(sample("png"), REQUEST, LIMITS).data == VARIANT


def test_a_child_that_makes_a_variant_can_only_report(hostile: Sandbox, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        written = tmp_path / str(listener.getsockname()[1])
        with pytest.raises(UndecodableImage) as caught:
            hostile.make(b"break_out\0" + bytes(written), REQUEST, LIMITS)
    assert not written.exists()
    assert caught.value.detail == ""


def test_variants_have_a_lower_priority_than_uploads(hostile: Sandbox) -> None:
    nice = []
    for job in (hostile.check, hostile.describe, partial(hostile.make, request=REQUEST)):
        with pytest.raises(UndecodableImage) as caught:
            job(b"nice", limits=LIMITS)
        nice.append(int(caught.value.detail))
    assert nice[0] < nice[1] == nice[2]


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="the kernel has no autogroups")
def test_the_session_of_a_decoder_has_a_lower_priority_too() -> None:
    """Otherwise, Linux would give decoders as much CPU time as the worker, whatever their nice values are."""
    code = (
        "from app.imaging.sandbox.confinement import start_session\n"
        "start_session(5)\n"
        "print(open('/proc/self/autogroup').read().split()[-1])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == os.nice(0) + 5
