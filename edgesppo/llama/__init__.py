"""llama.cpp's objects: library, weights, context, batch, samplers, tokenizer.

The only room that touches llama_cpp, and `library` the only file that imports it. Everything
here is token ids, bytes and handles; nothing knows of requests, chats or files of the store.
"""
