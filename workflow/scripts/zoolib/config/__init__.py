"""What a configuration says: schema, agreement of its parts, trees, labels, names of sources; no Keras."""
