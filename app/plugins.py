"""Finding the store and the generator that the settings name, one's own included."""

import importlib
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from app.errors import ConfigError

T = TypeVar("T")


def find_class(setting: str, value: str, known: Mapping[str, type[T]], base: type[Any]) -> type[T]:
    """The class that `value` names: one of `known`, or `package.module:Class`, a subclass of `base`.

    Raises `ConfigError` that names the setting, its value and what is wrong.
    """
    if value in known:
        return known[value]
    module, _, name = value.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"{setting}={value} can't be loaded: {exc}.") from exc
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"{setting}={value} is not a subclass of {base.__module__}.{base.__qualname__}.")
    return cast("type[T]", found)
