"""The Zarr store: its schema, its lock, and the one loop that every stage runs."""
