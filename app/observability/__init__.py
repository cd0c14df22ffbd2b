"""Access log, log records and Prometheus metrics."""
