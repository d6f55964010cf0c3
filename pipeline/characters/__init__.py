"""Characters in files: glTF's nodes and clips read as motion, and motion carried onto a user's own GLB, VRM or BVH."""
