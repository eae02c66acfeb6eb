"""From archives to packed arrays: readers, decoding, packing."""
