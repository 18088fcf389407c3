"""Speed and memory, each suite measured side by side with its rival."""
