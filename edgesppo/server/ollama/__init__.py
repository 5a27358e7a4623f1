"""The API of Ollama, which many desktop apps speak: chats, answers, and the one model."""
