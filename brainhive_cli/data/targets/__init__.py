"""Targets of training: stimuli through frozen encoders into stores, and stores opened
for a recipe.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
