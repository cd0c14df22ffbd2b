"""Settings: read from the environment and .env, validated once, frozen."""
