"""What wraps a store or a generator passes on everything that those can be asked."""

from types import FunctionType

import pytest

from app.generators.base import BaseGenerator
from app.observability.metrics import MeteredGenerator, MeteredStore
from app.stores.base import BaseStore

DERIVED = {"exists"}
"""Built on what is passed on."""


@pytest.mark.parametrize(("base", "wrapper"), [(BaseStore, MeteredStore), (BaseGenerator, MeteredGenerator)])
def test_every_method_is_passed_on(base: type, wrapper: type) -> None:
    """One left out would answer with the base's own default, and nobody would notice."""
    methods = {name for name, value in vars(base).items() if isinstance(value, FunctionType)} - DERIVED
    assert {name for name in methods if not name.startswith("_")} <= vars(wrapper).keys()
