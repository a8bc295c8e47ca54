"""The figures of the report, one module for each; they read files that earlier rules wrote."""
