"""Meta-training on one machine: the run, its folder, its log."""
