"""Signals: trials of a subject, their sensors or voxels, and steps on them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
