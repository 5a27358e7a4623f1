"""What a conversion will write, decided before the first byte: tensors, order, keys, checks."""
