"""Modules that every layer uses: errors, objects, object keys, addresses, locks, threads and request IDs."""
