"""A Keras model's state in variables, and one step on the whole model."""
