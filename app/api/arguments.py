"""Reading arguments: flask-smorest's parser, with our errors and no way to make it fail otherwise."""

from collections.abc import Mapping
from typing import Any, NoReturn

from flask import Request
from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser

from app.errors import BadRequest


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
        """Besides bad syntax: numbers of thousands of digits, and nesting past the stack."""
        try:
            return super()._raw_load_json(req)
        except (ValueError, RecursionError) as exc:
            raise BadRequest("The body is not valid JSON.") from exc


class Blueprint(SmorestBlueprint):  # type: ignore[misc]
    """flask-smorest's blueprint, whose argument errors are `BadRequest`."""

    ARGUMENTS_PARSER = _Parser()


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
