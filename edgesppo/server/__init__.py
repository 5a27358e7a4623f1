"""The HTTP server: many clients over one engine, in the dialects of OpenAI and of Ollama.

One worker thread owns the model and computes; the event loop only reads, checks and writes.
"""
