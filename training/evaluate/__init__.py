"""All figures of a run, and their report (mclip evaluate)."""
