"""Floats to quantised blocks: recipes, kernels, importance matrices. Bytes equal ggml's."""
