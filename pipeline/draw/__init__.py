"""Bodies and a camera -> pixels: cameras, a floor, and three renderers of one shading formula."""
