"""Sizes depend on the name of the model. Parameters and sizes that a server refuses are not sent again."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import AppError, GeneratorRefused, GeneratorUnreachable, PromptRefused
from app.generators.base import GenerationRequest
from app.generators.openai import OpenAIGenerator
from app.generators.openai_dialect import size_for
from tests.providers import IMAGE, OPENAI, Behaviour, ModelServer, answer

REQUEST = GenerationRequest("a red boat", 1024, 1024, seed=1)


def _generator(models: ModelServer, model: str = "my-deployment") -> OpenAIGenerator:
    return OpenAIGenerator(model, base_url=f"{models.url}/v1", timeout=30)


def _azure(name: str, code: str = "unknown_parameter") -> Behaviour:
    message = f"Unknown parameter: '{name}'."
    error = {"message": message, "type": "invalid_request_error", "param": name, "code": code}
    return answer("400 Bad Request", {"error": error})


def _older_openai(name: str) -> Behaviour:
    message = f"Unrecognized request argument supplied: {name}"
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return answer("400 Bad Request", {"error": error})


def _litellm(name: str) -> Behaviour:
    message = (
        f"litellm.UnsupportedParamsError: Setting `{name}` is not supported by openai, my-deployment."
        " To drop it from the call, set `litellm.drop_params = True`."
    )
    error = {"message": message, "type": "None", "param": "None", "code": "400"}
    return answer("400 Bad Request", {"error": error})


def _fastapi(name: str) -> Behaviour:
    problem = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
    return answer("422 Unprocessable Content", {"detail": [problem]})


def _flat(name: str) -> Behaviour:
    return answer("400 Bad Request", {"message": f'unexpected keyword argument "{name}"'})


def _text(name: str) -> Behaviour:
    return answer("400 Bad Request", f"unknown field '{name}'".encode(), Content_Type="text/plain")


REFUSALS = [_azure, _older_openai, _litellm, _fastapi, _flat, _text]


def _sent(models: ModelServer) -> list[set[str]]:
    return [set(request.json) for request in models.received]


ALL = {"model", "prompt", "n", "size", "response_format"}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_parameter_is_left_out_of_later_requests(
    models: ModelServer, refusal: Callable[[str], Behaviour], caplog: pytest.LogCaptureFixture
) -> None:
    models.script = [refusal("response_format"), OPENAI.success()]
    generator = _generator(models)
    assert generator.generate(REQUEST).image == IMAGE
    assert generator.generate(REQUEST).image == IMAGE
    assert _sent(models) == [ALL, ALL - {"response_format"}, ALL - {"response_format"}]
    assert models.received[1].json == {
        name: value for name, value in models.received[0].json.items() if name != "response_format"
    }
    assert caplog.text.count("my-deployment refuses response_format; no longer sending it") == 1


@pytest.mark.parametrize("name", ["n", "output_format", "response_format"])
@pytest.mark.parametrize("refusal", [_azure, _fastapi, _litellm])
def test_parameters_that_do_not_change_the_image_are_optional(
    models: ModelServer, name: str, refusal: Callable[[str], Behaviour]
) -> None:
    model = OPENAI.model if name == "output_format" else "my-deployment"
    models.script = [refusal(name), OPENAI.success()]
    assert _generator(models, model).generate(REQUEST).image == IMAGE
    first, second = _sent(models)
    assert first - second == {name}


def test_several_parameters_are_left_out_one_after_the_other(models: ModelServer) -> None:
    models.script = [_azure("response_format"), _azure("n"), OPENAI.success()]
    generator = _generator(models)
    generator.generate(REQUEST)
    generator.generate(REQUEST)
    assert _sent(models)[2:] == [{"model", "prompt", "size"}] * 2


@pytest.mark.parametrize("name", ["size", "prompt", "model", "quality", "seed", "stream"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_parameters_that_change_the_image_are_never_left_out(
    models: ModelServer, name: str, refusal: Callable[[str], Behaviour]
) -> None:
    models.script = [refusal(name)]
    with pytest.raises((GeneratorRefused, PromptRefused)):
        _generator(models).generate(REQUEST)
    assert models.attempts == 1


def test_the_error_detail_quotes_a_refusal_without_a_message(models: ModelServer) -> None:
    models.script = [_fastapi("size")]
    with pytest.raises(GeneratorRefused, match=r"extra_forbidden.*'size'"):
        _generator(models).generate(REQUEST)


@pytest.mark.parametrize(
    "behaviour",
    [
        answer("400 No", {"error": {"message": "response_format", "code": "moderation_blocked"}}),
        answer("400 No", {"error": {"message": "no 'response_format'", "param": "prompt"}}),
        answer("401 No", {"error": {"message": "response_format"}}),
        answer("400 No", {"error": {"message": "the response_formatter broke"}}),
        answer("400 No", {"error": {"message": "n is a letter"}}),
        answer("400 No", {"error": {"message": "x" * 5000 + " response_format"}}),
        answer("400 No", b""),
    ],
    ids=range(7),
)
def test_other_refusals_are_not_retried(models: ModelServer, behaviour: Behaviour) -> None:
    models.script = [behaviour]
    with pytest.raises(AppError):
        _generator(models).generate(REQUEST)
    assert models.attempts == 1


def test_a_refused_parameter_is_remembered_only_if_leaving_it_out_helped(models: ModelServer) -> None:
    """The error message may repeat the prompt, which may happen to contain the name of a parameter."""
    models.script = [_flat("response_format")]
    generator = _generator(models)
    with pytest.raises(GeneratorRefused):
        generator.generate(REQUEST)
    models.script = [OPENAI.success()]
    generator.generate(REQUEST)
    assert _sent(models) == [ALL, ALL - {"response_format"}, ALL]


def test_an_outage_between_refusals_is_retried(models: ModelServer) -> None:
    models.script = [_azure("response_format"), OPENAI.outage, _azure("response_format"), OPENAI.success()]
    assert _generator(models).generate(REQUEST).image == IMAGE


def test_nothing_is_learned_from_a_5xx(models: ModelServer) -> None:
    models.script = [answer("500 Oops", {"error": {"message": "unknown parameter 'response_format'"}})]
    with pytest.raises(GeneratorUnreachable):
        _generator(models).generate(REQUEST)
    assert _sent(models) == [ALL] * 3


def _supported_sizes(*sizes: str) -> str:
    listed = ", ".join(f"'{size}'" for size in sizes)
    return f"Invalid value: '{{sent}}'. Supported values are: {listed}, and 'auto'."


def _gpt_image(message: str) -> Behaviour:
    """A GPT image model under a different name. It has three sizes and refuses response_format."""

    def behave(
        server: ModelServer, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        form = server.received[-1].json
        if "response_format" in form:
            return _azure("response_format")(server, environ, start_response)
        if form["size"] not in message:
            error = {"message": message.format(sent=form["size"]), "param": "size", "code": "invalid_value"}
            return answer("400 Bad Request", {"error": error})(server, environ, start_response)
        return OPENAI.success()(server, environ, start_response)

    return behave


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        ((1600, 900), "1536x1024"),
        ((900, 1600), "1024x1536"),
        ((500, 500), "1024x1024"),
        ((1024, 1024), "1024x1024"),
    ],
)
def test_the_nearest_size_named_in_a_refusal_is_requested(
    models: ModelServer, asked: tuple[int, int], drawn: str
) -> None:
    models.script = [_gpt_image(_supported_sizes("1024x1024", "1024x1536", "1536x1024"))]
    generator = _generator(models)
    for _ in range(2):
        assert generator.generate(GenerationRequest("sea", *asked, seed=1)).image == IMAGE
    assert models.received[-1].json["size"] == drawn
    assert sum("response_format" in sent for sent in _sent(models)) == 1


def test_among_equal_ratios_the_nearest_area_is_requested(models: ModelServer) -> None:
    models.script = [_gpt_image(_supported_sizes("256x256", "512x512", "1024x1024"))]
    _generator(models).generate(GenerationRequest("sea", 600, 600, seed=1))
    assert models.received[-1].json["size"] == "512x512"


def test_contradictory_size_refusals_end_in_an_error(models: ModelServer) -> None:
    sizes = itertools.cycle(["512x512", "256x256"])

    def contrary(server: ModelServer, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        error = {"message": f"size must be {next(sizes)}", "param": "size"}
        return answer("400 Bad Request", {"error": error})(server, environ, start_response)

    models.script = [contrary]
    with pytest.raises(GeneratorRefused):
        _generator(models).generate(REQUEST)
    assert models.attempts == 2


_SIDES = st.integers(1, 4096)


@pytest.mark.parametrize(
    ("model", "size", "sent"),
    [
        ("gpt-image-2.6-flare", (1024, 1024), "1024x1024"),
        ("gpt-image-2.6-flare", (2048, 1152), "2048x1152"),
        ("gpt-image-2.6-flare", (64, 64), "816x816"),
        ("openai/gpt-image-2", (2048, 64), "1408x480"),
        ("gpt-image-1.5", (64, 64), "1024x1024"),
        ("gpt-image-1-mini", (1920, 1080), "1536x1024"),
        ("chatgpt-image-latest", (600, 2000), "1024x1536"),
        ("stablediffusion", (64, 100), "64x112"),
        ("flux", (2048, 64), "2048x64"),
    ],
)
def test_the_requested_size_follows_the_models_name(model: str, size: tuple[int, int], sent: str) -> None:
    assert size_for(model, *size) == sent


@given(_SIDES, _SIDES)
def test_sizes_for_gpt_models_are_within_their_limits(width: int, height: int) -> None:
    across, down = map(int, size_for("gpt-image-2", width, height).split("x"))
    assert (across % 16, down % 16) == (0, 0)
    assert max(across, down) <= 3 * min(across, down)
    assert across * down >= 655_360
