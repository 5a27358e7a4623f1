"""What tests share: small models, fakes, a terminal, faults, reference values."""
