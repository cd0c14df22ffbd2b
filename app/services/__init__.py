"""The service layer, which uploads, generates, fetches and deletes images. It does not depend on HTTP."""
