"""OpenAI's form of a conversation, as the server and batches read and answer it; no HTTP.

- messages.py: a client's messages -> Gemma-2's turns
- tools.py: tools -> what the model is told, and the grammar of a call
- choices.py, logprobs.py: answers -> the choices and the usage of a chat completion
- errors.py: a field that cannot be followed
"""
