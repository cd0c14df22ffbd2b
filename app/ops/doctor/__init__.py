"""The checks of `flask bucket doctor`: settings, cache and bucket. docs/doctor.md lists them."""
