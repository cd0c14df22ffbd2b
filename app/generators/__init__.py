"""Image generators: the base class to extend, the built-in painter, Amazon Bedrock and OpenAI's protocol."""
