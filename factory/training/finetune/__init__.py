"""Train by Ray Train."""
