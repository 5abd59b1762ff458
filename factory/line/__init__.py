"""Run stages on Ray; this folder knows no stage and no prompt."""
