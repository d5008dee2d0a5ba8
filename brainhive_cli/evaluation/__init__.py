"""What trained models are measured by: retrieval, reconstruction and explanation."""
