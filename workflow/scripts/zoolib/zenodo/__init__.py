"""Downloads over HTTP, Zenodo records, and images inside zip archives."""
