"""Finding the store and the generator that the settings name, one's own included."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from app.core.errors import ConfigError

T = TypeVar("T")


def find_class(setting: str, value: str, known: Mapping[str, type[T] | str], base: type[Any]) -> type[T]:
    """The class that `value` names: one of `known`, or `package.module:Class`, a subclass of `base`.

    What is known as `package.module:Class` is imported only where it is asked for.

    Raises `ConfigError` that names the setting, its value and what is wrong.
    """
    named = known.get(value, value)
    if not isinstance(named, str):
        return named
    module, _, name = named.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as exc:  # whatever somebody else's module does when it is imported
        raise ConfigError(f"{setting}={value} can't be loaded: {exc}.") from exc
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"{setting}={value} is not a subclass of {base.__module__}.{base.__qualname__}.")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise ConfigError(f"{setting}={value} lacks these methods: {missing}.")
    return cast("type[T]", found)
