"""boto3 sessions with bounded answers, and what their credentials, endpoints and errors mean."""
