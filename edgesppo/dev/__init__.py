"""What only a checkout needs: its set-up, and how the demo model was made. Never shipped."""
