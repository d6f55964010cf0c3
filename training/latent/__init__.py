"""Texts and motions to latent vectors and back: encode, decode, edit, search, recognise."""
