"""Programs drawn from a seed without asking the model, and what runs and judges them."""
