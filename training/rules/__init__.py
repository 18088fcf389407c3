"""What can be unrolled: learned and hand-designed optimizers."""
