"""The paper's figures, each by one command: see `__main__`."""
