"""What pulls signal tokens and image tokens together."""
