"""The settings, which are read from the environment and `.env`, and validated."""
