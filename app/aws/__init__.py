"""Modules that all code uses to call boto3: limited sessions, endpoints, credentials and kinds of errors."""
