"""Arrays in, arrays out: rotations, the skeleton, resampling, bodies."""
