"""How the next token is sampled: the parameters, and the sampler stages that they stand for.

Plain values, without text or tokens; edgesppo.llama creates the native samplers.
"""
