"""Write the output file: as a part file with a journal, which gets its final name when complete."""
