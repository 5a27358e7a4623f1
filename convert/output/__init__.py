"""The output file while it is written: journal, part file, final name."""
