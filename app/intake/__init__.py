"""Request bodies: how many are taken in at once, and that none of them holds a thread for long."""

from app.intake.front import Intake

__all__ = ["Intake"]
