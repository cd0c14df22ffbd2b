"""Load the classes that `STORE` and `GENERATOR` name, which are built-in or custom."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from app.core.errors import ConfigError

T = TypeVar("T")


def find_class(setting: str, value: str, known: Mapping[str, type[T] | str], base: type[Any]) -> type[T]:
    """Return the class that `value` names. `value` is a key of `known`, or `package.module:Class`.

    The values of `known` are classes or strings like `package.module:Class`. A class given as a string is
    imported only if `value` names it.

    Raises `ConfigError` if the class can't be imported, does not extend `base`, or lacks an abstract method.
    The message names the setting and its value.
    """
    target = known.get(value, value)
    if not isinstance(target, str):
        return target
    module, _, name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as exc:  # importing a custom module can raise anything
        raise ConfigError(f"{setting}={value} can't be loaded: {exc}.") from exc
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            f"{setting}={value} is not a subclass of {base.__module__}.{base.__qualname__}. "
            "Extend that class."
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise ConfigError(f"{setting}={value} lacks these methods: {missing}. Implement them.")
    return cast("type[T]", found)
