"""Programs to run by hand: recording a chat as a picture, and a JSON Schema test suite."""
