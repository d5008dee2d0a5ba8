"""Pictures and clips: their files, decoding and augmentation."""
