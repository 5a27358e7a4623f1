"""The demo checkpoint that ships with the package: a tiny trained Gemma-2, data only."""
