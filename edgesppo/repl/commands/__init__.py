"""The slash commands of the chat: `registry` lists them, the other files implement them."""
