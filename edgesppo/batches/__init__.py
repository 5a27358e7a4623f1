"""Batches: many prompts from a file, answered side by side, into a file that can be continued.

input.py     the rows of IN, and their hash         recipe.py    what holds for every row
request.py   one row -> what to generate            openai.py    OpenAI's form of a row
runner.py    rows -> answers, many at once          result.py    answers -> one line of OUT
output.py    OUT and its journal: resumable         batch.py     `edgesppo.batch`
work.py      who answers: local.py, a model here    sppo.py, alpaca.py   recipes with files
"""
