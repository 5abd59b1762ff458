"""Judges of an asset's pictures behind one interface: `judge.Judge`; `load.load_judge` makes them."""
