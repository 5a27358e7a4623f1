"""Batches: many prompts from a file, answered side by side, into a file that can be continued.

- input.py: the rows of IN, and their hash; request.py: one row -> what to generate;
  conversation.py: its messages and tools; openai.py: OpenAI's form of a row; recipe.py: what
  holds for every row
- runner.py: rows -> answers, many at once; result.py: answers -> one line of OUT
- output.py: OUT and its journal, resumable; head.py: what an OUT belongs to
- work.py: who answers: local.py, a model here; cluster.py and machine.py, the machines of a Ray
  cluster
- sppo.py and alpaca.py (with answer_figures.py and likelihood.py): recipes with files of their own
- batch.py: `edgesppo.batch`
"""
