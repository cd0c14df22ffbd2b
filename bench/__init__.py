"""Benchmarks of the server and of comparable servers. Run `python -m bench --help`."""
