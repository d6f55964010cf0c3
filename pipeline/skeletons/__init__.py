"""Other programs' skeletons -> SMPL's joints: their text, whose joint is whose, axes from the motion, and a check."""
