"""What every job needs: its log, attempts, GPUs, provenance, and words for messages."""
