"""Check images in a child process that the kernel holds to bounds.

PLACEHOLDER
"""
