"""The one road from stores to tensors: trials, targets, pictures."""
