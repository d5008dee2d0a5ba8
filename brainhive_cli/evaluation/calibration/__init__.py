"""Calibration: how well a new person is decoded after how much recording."""
