"""The learned rule: pure functions of tensors, on any backend of Keras."""
