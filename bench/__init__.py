"""Benchmarks: what the server reaches, side by side with its peers; `python -m bench --help` says how."""
