"""The bounded LRU disk cache in front of the store, shared by all worker processes on a machine."""
