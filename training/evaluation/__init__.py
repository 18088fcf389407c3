"""Comparisons of optimizers on problems and networks not trained on."""
