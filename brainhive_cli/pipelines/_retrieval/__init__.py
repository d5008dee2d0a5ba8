"""The evaluation of align runs."""
