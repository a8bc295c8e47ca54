"""The figures of the report, one module each; they read files that earlier rules made."""
