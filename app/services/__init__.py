"""The service layer: everything the server does with images, without HTTP."""
