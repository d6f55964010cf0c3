"""Label files -> spans of text, whose recordings they are, and which of them a crop carries."""
