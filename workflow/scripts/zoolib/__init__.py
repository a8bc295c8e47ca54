"""Galaxy Zoo from volunteers' votes to posteriors: the logic behind every rule of the pipeline."""

import os

# Pages of TensorFlow's own messages before a sentence of ours; its errors come as exceptions anyway.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
