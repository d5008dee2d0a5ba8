"""Training of a brain model, from the job to the finished cell."""
