"""Pictures through frozen encoders into stores."""
