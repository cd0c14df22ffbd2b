"""From a prompt to stored images: bounded in number and time, and done once where a client asks twice."""

from app.generation.drawing import Drawing
from app.generation.order import Order, StoredGeneration
from app.generation.service import GenerationService

__all__ = ["Drawing", "GenerationService", "Order", "StoredGeneration"]
