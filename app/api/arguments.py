"""Reading arguments: flask-smorest's parser, with our errors and no way to make it fail otherwise."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from flask import Request, current_app, request
from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser

from app.core.errors import BadRequest

MAX_DEPTH = 32
"""Lists and objects within each other, the body among them, whatever the interpreter's stack would bear."""

_TOO_DEEP = f"The body's JSON has more than {MAX_DEPTH} levels of lists and objects."

_QUERY_NAMES = "query_names"
"""The attribute of a view that holds the names of its query parameters, or None if it ignores all others."""

_LONGEST_NAME = 60
"""Characters of an unknown parameter's name that the answer repeats."""

View = TypeVar("View", bound=Callable[..., Any])


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
    """flask-smorest's blueprint, whose argument errors are `BadRequest`.

    Query parameters that a view does not know are refused by `check_query`.
    """

    ARGUMENTS_PARSER = _Parser()

    def arguments(
        self, schema: type[Schema], *, location: str = "json", **kwargs: Any
    ) -> Callable[[View], View]:
        """Parse arguments as flask-smorest does, and note which query parameters the view knows."""
        parse = super().arguments(schema, location=location, **kwargs)

        def decorate(view: View) -> View:
            parsed: View = parse(view)
            return query_names(*schema().fields)(parsed) if location == "query" else parsed

        return decorate


def query_names(*names: str) -> Callable[[View], View]:
    """Note which query parameters a view knows. `functools.wraps` copies this to all its wrappers."""

    def decorate(view: View) -> View:
        setattr(view, _QUERY_NAMES, names)
        return view

    return decorate


def any_query(view: View) -> View:
    """Let a view ignore whatever stands in the query, such as `?v=2` after an image's URL."""
    setattr(view, _QUERY_NAMES, None)
    return view


def check_query() -> None:
    """Raise `BadRequest` for query parameters that the API call does not know, or that are sent twice.

    Ignored, `?dry_run=true` would delete. The page and its files are not calls, and ignore them.
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
        raise BadRequest("The query is not valid: percent-encode what is not ASCII, as UTF-8.") from exc
    unknown = [name for name in sent if name not in names]
    if unknown:
        raise BadRequest(
            f"{unknown[0][:_LONGEST_NAME]}: Unknown query parameter. This call takes {_listed(names)}."
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
