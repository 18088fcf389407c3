"""Command-line programs: quick start and benchmarks."""
