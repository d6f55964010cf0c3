"""How good a model is: arrays in, figures out."""
