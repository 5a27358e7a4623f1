"""Tests of edgesppo.openai_api."""
