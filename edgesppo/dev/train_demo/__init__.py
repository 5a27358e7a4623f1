"""Make the demo checkpoint: its training data, tokenizer, training, and evaluation.

Run as `python -m edgesppo.dev.train_demo.train` in a checkout; the runtime imports nothing of it.
The modules import each other in this order:
wording -> facts, product, talk, outside, sums -> memory -> dialogues -> train.
"""
