"""WSGI middleware in front of Flask, for cached images, request bodies, CORS and the mount point."""
