"""A generator that counts what it draws."""

from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest
from app.generators.models import ModelFacts
from app.metrics.catalogue import Metrics
from app.metrics.timed import timed


class MeteredGenerator(BaseGenerator):
    """`generator`, each call of which is counted and timed."""

    def __init__(self, generator: BaseGenerator, metrics: Metrics) -> None:
        self._generator = generator
        self._metrics = metrics

    def model_name(self) -> str:
        """What draws."""
        return self._generator.model_name()

    def describe_model(self) -> ModelFacts | None:
        """Not counted: the operator asks, not a client."""
        return self._generator.describe_model()

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Counted under the model that is set: what a generator says afterwards may be anything."""
        with timed(self._metrics.generations, self._metrics.generation_seconds, self.model_name()):
            return self._generator.generate(request)
