"""The built-in image generator: a landscape painter that follows the words of a prompt."""
