"""Meta-training of any rule: unrolls, meta-gradients, meta-steps."""
