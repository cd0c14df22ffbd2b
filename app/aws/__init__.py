"""Support for all code that uses boto3: limited sessions, endpoints, credentials and kinds of errors."""
