"""Checkpoints as they are found, all untrusted: folders, repositories of the hub, shards, JSON."""
