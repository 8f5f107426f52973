"""The maker of the embedded guide: text, tokenizer, training, evaluation. See README.md."""
