"""Problems to optimise: usable with any optimizer, imports nothing of ours."""
