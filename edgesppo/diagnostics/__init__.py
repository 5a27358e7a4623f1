"""Looking for what is wrong: with this machine and installation, and with a new model file."""
