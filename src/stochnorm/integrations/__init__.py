"""Callbacks for the training loops of other libraries: each file needs its library and nothing else of stochnorm but
the layer. `docs/loops.md` says what they do and what works without them."""
