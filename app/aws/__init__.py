"""Modules for every use of boto3: sessions with limits, endpoints, credentials and error classification."""
