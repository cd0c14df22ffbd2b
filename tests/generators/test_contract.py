"""The contract of generators, tested with every generator that `GENERATOR` has a name for."""

import pytest

from app.components import GENERATORS
from app.config.plugins import find_class
from app.config.settings import Config
from app.generators.base import BaseGenerator
from tests.contracts import GeneratorContract
from tests.providers import BEDROCK, OPENAI, ModelServer

PROTOCOLS = {"bedrock": BEDROCK, "openai": OPENAI}


@pytest.fixture(scope="module", params=sorted(GENERATORS))
def made(request: pytest.FixtureRequest, model_server: ModelServer) -> tuple[str, BaseGenerator]:
    """A name for `GENERATOR`, and the generator with this name."""
    name: str = request.param
    config = Config.from_env({})
    if name in PROTOCOLS:
        config = PROTOCOLS[name].config(config, model_server)
    found: type[BaseGenerator] = find_class("GENERATOR", name, GENERATORS, BaseGenerator)
    return name, found.from_config(config)


class TestKnownGenerators(GeneratorContract):
    """The contract. Generators that need a provider get a server with image models."""

    @pytest.fixture
    def generator(self, made: tuple[str, BaseGenerator], models: ModelServer) -> BaseGenerator:
        """The generator with this name, with a model that succeeds."""
        name, generator = made
        if name in PROTOCOLS:
            models.script = [PROTOCOLS[name].success()]
        return generator
