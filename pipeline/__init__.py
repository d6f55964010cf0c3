"""The way of the data: AMASS files to 6D rotations, pictures and CLIP vectors in one Zarr store."""
