"""Parse the arguments of API calls, which are JSON bodies, queries and headers, with flask-smorest."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from flask import Request, current_app, request
from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser

from app.core.errors import BadRequest

MAX_DEPTH = 32
"""Maximum nesting depth of a JSON body. The outermost list or object counts as the first level. The maximum
is far below Python's recursion limit."""

_TOO_DEEP = f"The JSON body exceeds the limit of {MAX_DEPTH} nested lists and objects."

_QUERY_NAMES = "query_names"
"""The attribute of a view that holds the names of its query parameters, or None if the view accepts any
name."""

_MAX_NAME_LENGTH = 60
"""Maximum number of characters that an error message quotes from the name of an unknown parameter."""

View = TypeVar("View", bound=Callable[..., Any])


class _Parser(FlaskParser):
    DEFAULT_VALIDATION_STATUS = 400  # for the OpenAPI document

    def handle_error(self, error: ValidationError, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise `BadRequest` for input that the schema rejects."""
        raise BadRequest(validation_message(error)) from error

    def load_json(self, req: Request, schema: Schema) -> Any:
        """Return the JSON body.

        Its Content-Type must be JSON. Pages of other origins can't send this type unless CORS allows it.
        """
        if not req.is_json:
            raise BadRequest("Send a JSON object, with the header 'Content-Type: application/json'.")
        return super().load_json(req, schema)

    def _raw_load_json(self, req: Request) -> Any:
        """Return the parsed body. Raises `BadRequest` for invalid syntax, huge numbers and deep nesting."""
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
    """A flask-smorest blueprint whose views raise `BadRequest` for invalid arguments.

    For these views, `check_query` rejects query parameters that the view does not declare.
    """

    ARGUMENTS_PARSER = _Parser()

    def arguments(
        self, schema: type[Schema], *, location: str = "json", **kwargs: Any
    ) -> Callable[[View], View]:
        """Parse arguments as flask-smorest does, and record the query parameters that the view declares."""
        parse = super().arguments(schema, location=location, **kwargs)

        def decorate(view: View) -> View:
            parsed: View = parse(view)
            return query_names(*schema().fields)(parsed) if location == "query" else parsed

        return decorate


def query_names(*names: str) -> Callable[[View], View]:
    """Declare the query parameters of a view. `functools.wraps` copies the declaration to wrappers."""

    def decorate(view: View) -> View:
        setattr(view, _QUERY_NAMES, names)
        return view

    return decorate


def any_query(view: View) -> View:
    """Let a view accept and ignore any query parameter, such as `?v=2` at the end of an image URL."""
    setattr(view, _QUERY_NAMES, None)
    return view


def check_query() -> None:
    """Raise `BadRequest` for query parameters that the API call does not declare, or that are repeated.

    If unknown parameters were ignored, a DELETE request with `?dry_run=true` would delete the image. The web
    page and its files accept any parameter.
    """
    blueprint = current_app.blueprints.get(request.blueprint or "")
    if not isinstance(blueprint, Blueprint) or request.method == "OPTIONS":
        return
    names = getattr(current_app.view_functions[str(request.endpoint)], _QUERY_NAMES, ())
    if names is None:
        return
    try:
        sent = Counter(name for name, _ in request.args.items(multi=True))
    except UnicodeDecodeError as exc:
        raise BadRequest("The query is malformed: percent-encode its characters as UTF-8.") from exc
    unknown = [name for name in sent if name not in names]
    if unknown:
        raise BadRequest(
            f"{unknown[0][:_MAX_NAME_LENGTH]}: Unknown query parameter. This call accepts {_listed(names)}."
        )
    repeated = [name for name, times in sent.items() if times > 1]
    if repeated:
        raise BadRequest(" ".join(f"{name}: Sent more than once." for name in repeated))


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(sorted(names)) if names else "none"


def _is_too_deep(loaded: Any) -> bool:
    level = [loaded]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _containers_in(value)]
    return bool(level)


def _containers_in(value: Any) -> list[Any]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [inner for inner in values if isinstance(inner, dict | list)]


def validation_message(error: ValidationError) -> str:
    """Return one sentence for each invalid field."""
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
