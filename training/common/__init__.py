"""Helpers that all of `training` uses and that do not depend on it."""
