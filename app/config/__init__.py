"""The settings: read from the environment and `.env`, validated together, and frozen."""
