"""llama.cpp's objects: the library, weights, tokenizer, contexts, batches and samplers.

This is the only room that touches llama_cpp, and `library` is the only file that imports it. It
works with token ids, bytes and native handles, and knows no requests, chats or model store. Every
native handle is freed once: by `close()` or, at the latest, when its owner is collected.
"""
