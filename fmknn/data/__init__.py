"""Raw input to integers and entity blocks."""
