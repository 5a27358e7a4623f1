"""The Gemma-2 family: which tensors, hyper-parameters and vocabulary a checkpoint must have.

Computes plans from configs, names and shapes; reads no weights and writes nothing.
"""
