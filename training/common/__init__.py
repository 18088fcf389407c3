"""What all of `training` uses, and what knows nothing of it."""
