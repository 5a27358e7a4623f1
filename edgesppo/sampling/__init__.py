"""How the next token is drawn: the parameters that people set, and the stages they mean.

Plain values; the native samplers are made in edgesppo.llama.
"""
