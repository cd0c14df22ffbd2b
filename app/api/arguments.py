"""Reading arguments: flask-smorest's parser, with our errors and no way to make it fail otherwise."""

from collections.abc import Mapping
from typing import Any, NoReturn

from flask import Request
from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser

from app.errors import BadRequest

MAX_DEPTH = 32
"""Lists and objects within each other, the body among them, whatever the interpreter's stack would bear."""

_TOO_DEEP = f"The body's JSON has more than {MAX_DEPTH} levels of lists and objects."


class _Parser(FlaskParser):
    DEFAULT_VALIDATION_STATUS = 400  # what the OpenAPI document says of `handle_error`

    def handle_error(self, error: ValidationError, *args: Any, **kwargs: Any) -> NoReturn:
        """What webargs calls when a schema refuses its input."""
        raise BadRequest(problems(error)) from error

    def load_json(self, req: Request, schema: Schema) -> Any:
        """The body's JSON, which must be said to be JSON: so no page of another site can send it unasked."""
        if not req.is_json:
            raise BadRequest("Send a JSON object, with the header 'Content-Type: application/json'.")
        return super().load_json(req, schema)

    def _raw_load_json(self, req: Request) -> Any:
        """Besides bad syntax: numbers of thousands of digits, and nesting past our bound or the stack."""
        try:
            loaded = super()._raw_load_json(req)
        except ValueError as exc:
            raise BadRequest("The body is not valid JSON.") from exc
        except RecursionError as exc:
            raise BadRequest(_TOO_DEEP) from exc
        if _is_too_deep(loaded):
            raise BadRequest(_TOO_DEEP)
        return loaded


class Blueprint(SmorestBlueprint):  # type: ignore[misc]
    """flask-smorest's blueprint, whose argument errors are `BadRequest`."""

    ARGUMENTS_PARSER = _Parser()


def _is_too_deep(loaded: Any) -> bool:
    level = [loaded]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _containers_in(value)]
    return bool(level)


def _containers_in(value: Any) -> list[Any]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [inner for inner in values if isinstance(inner, dict | list)]


def problems(error: ValidationError) -> str:
    """What is wrong with each field, in one sentence after the other."""
    return " ".join(_sentences(error.messages_dict))


def _sentences(messages: Mapping[str, Any], field: str = "") -> list[str]:
    found: list[str] = []
    for name, value in messages.items():
        if isinstance(value, Mapping):
            found += _sentences(value, str(name))
        else:
            label = field if name == "_schema" else name
            found += [
                f"{label}: {text}" if label not in ("", "json", "query", "_schema") else text
                for text in value
            ]
    return found
