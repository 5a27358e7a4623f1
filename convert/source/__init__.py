"""Read checkpoints: a folder or a repository on the hub, its safetensors shards, its JSON files.

Nothing that is read here is trusted: sizes are bounded, names and types are checked. What the
tensors mean is not known here; that is the business of `gemma2`.
"""
