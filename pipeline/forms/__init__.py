"""What a motion is written as in files of arrays: names, nested people, joint places, features -> recordings."""
