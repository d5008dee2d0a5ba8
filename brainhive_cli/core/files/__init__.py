"""Files, documents, archives, downloads, and what a command reads."""
