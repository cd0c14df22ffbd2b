"""The built-in generator, which paints without any AI model."""

from app.generators.builtin.painter import BuiltinGenerator

__all__ = ["BuiltinGenerator"]
