"""The way of the model: cached vectors to a trained MotionCLIP, and its latent space in use."""
