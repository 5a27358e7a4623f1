"""Owns how the demo checkpoint is made: its data, tokenizer, training and proof.

Nothing here is imported by the runtime. The order of imports is
wording -> facts, product, talk, outside, sums -> memory -> dialogues -> train.
"""
