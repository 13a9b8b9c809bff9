"""Pages of pictures to look through."""
