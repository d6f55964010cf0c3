"""Where mclip keeps what it ships: motions, bodies, the offline image tower, recipes."""

from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]  # the repository's root, or the folder of the installed package
ASSETS = HOUSE / "pipeline" / "assets"
# Motions in AMASS's layout with BABEL's labels in `babel`, by the names that commands know: captured, written by hand.
SHIPPED = {"embedded": ASSETS / "motions", "everyday": ASSETS / "everyday"}
MOTIONS = SHIPPED["embedded"]
RECIPES = HOUSE / "workflows"
