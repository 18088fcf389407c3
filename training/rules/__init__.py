"""Rules that can be unrolled: learned and hand-designed optimizers."""
