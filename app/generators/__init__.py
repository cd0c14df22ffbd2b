"""Image generators: the built-in painter, and the class to extend for one's own."""
