"""The auto-encoder: its sizes, its layers, its losses, and the folder that a run is kept in."""
