"""What translating a dialect costs, beside bytes that pass."""
