"""What makes a checkpoint a Gemma-2: its tensors, hyper-parameters and vocabulary."""
