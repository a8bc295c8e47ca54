"""Commands that write the YAML themselves: `make finetune` and `make predict`."""
