"""Pictures and texts -> CLIP vectors (mclip embed)."""
