"""Read and check the header of an untrusted GGUF file, within bounded memory.

Nothing here loads llama.cpp: a file is checked before native code reads it.
"""
