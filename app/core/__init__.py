"""Modules that every layer uses: errors, object keys and facts, locks, threads and the request context."""
