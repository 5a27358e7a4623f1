"""The models on this machine: where they are, how they get here, and how they go again."""
