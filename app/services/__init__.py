"""The service layer: what the product does, without HTTP."""
