"""Plan a conversion: decide which tensors and keys the file will hold, and in which order.

Reads config, vocabulary and headers, and writes nothing. Everything that can be refused before the
first weight is read is refused here.
"""
