"""Files written whole, and untrusted ones read safely."""
