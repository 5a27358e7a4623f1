"""The API of OpenAI: its requests, answers, streams and tools."""
