"""Stores that commands write: targets of stimuli, and signals of subjects."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
