"""Shared by tests: small models, fakes, a pseudo-terminal, fault injection, reference values."""
