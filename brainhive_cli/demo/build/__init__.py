"""Makes the demo's weights anew: a program above the pipelines that users never need to run."""
