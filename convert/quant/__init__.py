"""Quantise: which type each tensor gets, and floats -> blocks, byte for byte as ggml makes them.

Reads importance matrices; writes no files.
"""
