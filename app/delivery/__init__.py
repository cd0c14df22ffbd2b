"""WSGI middleware in front of Flask: cached images, request bodies, CORS and the mount point."""
