"""Motions as files, pages, galleries and a studio (mclip export, gallery, studio)."""
