"""Rotations -> pictures and videos (mclip render)."""
