"""Meta-training, evaluation and benchmarks; programs are at the top."""
