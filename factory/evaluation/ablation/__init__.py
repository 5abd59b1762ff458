"""Fit true turntables by every variant that the paper ablates."""
