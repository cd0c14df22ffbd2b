"""Image generators: the base class, the built-in painter, Amazon Bedrock, and servers with OpenAI's API."""
