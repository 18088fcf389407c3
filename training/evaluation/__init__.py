"""Optimizers compared on problems and networks not trained on."""
