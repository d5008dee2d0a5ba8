"""The evaluation of brain models: which stimulus of a gallery was seen."""
