"""Speed and memory, each suite side by side with its rival."""
