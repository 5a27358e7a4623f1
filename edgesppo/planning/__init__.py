"""How a model will be run and what that takes: plain values and arithmetic, nothing is loaded."""
