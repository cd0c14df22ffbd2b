"""What every layer uses: errors, object keys and facts, locks, threads and the request's context."""
