"""What every use of boto3 shares: sessions with limits, endpoints, credentials and error classification."""
