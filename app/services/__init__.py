"""The service layer, which does the work on images and knows nothing of HTTP."""
