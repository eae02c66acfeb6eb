"""From archives to packed arrays: readers, the embedded sample data, packing."""
