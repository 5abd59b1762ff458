"""Judge an asset's pictures behind one interface: `judge.Judge`; `load.load_judges` makes them."""
