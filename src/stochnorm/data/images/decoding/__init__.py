"""From an image file to pixels: formats, orientation, transparency, colours."""
