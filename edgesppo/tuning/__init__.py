"""Which settings run a model fastest on this machine: measured, remembered, chosen."""
