"""What every job needs: a log, attempts, provenance, GPUs, and words."""
