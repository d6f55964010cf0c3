"""Motion files and label files -> sequences, rotations, windows and texts (mclip prepare)."""
