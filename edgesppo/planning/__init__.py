"""How a model will be run and what memory that takes: plain values and arithmetic.

Nothing is loaded or measured here.
"""
