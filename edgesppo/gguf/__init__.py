"""GGUF files that nobody vouches for: their head is read within bounds, and checked for Gemma-2.

Nothing here loads llama.cpp: a file is judged before native code sees it.
"""
